"""Turn a score into the code it claims to be the length of, and decode that code again.

    score in batches ──> claim
    the same predictor, token by token ──> bitstream ──> file ──> `verify` ──> the text again

The certificate says yes only if the text came back and the bitstream is as long as claimed.
"""

import hashlib
import math
import time
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from fairway.artifact.config_json import config_from_json
from fairway.artifact.loaded_model import LoadedModel, load_model
from fairway.evaluate.bpb import Score
from fairway.evaluate.chunks import ChunkPlan, read_chunks
from fairway.evaluate.clocked import Chunks, following
from fairway.evaluate.config import EvaluateConfig, make_predictor, make_settled_predictor
from fairway.evaluate.ledger import Margins, Ties
from fairway.evaluate.predictor import Predictor, score_stream
from fairway.proof.bitstream import Encoded, WalkConfig, encode_stream
from fairway.proof.certificate import Certificate, SettledFacts
from fairway.proof.decoder_limits import check_evaluation
from fairway.proof.guard import Deviation, seen_deviation
from fairway.proof.prefix import Prefix, prefix_of
from fairway.proof.proof_file import ProofFile
from fairway.proof.reproducible import NotReproducible, circumstances, reproducible
from fairway.proof.settled_stream import encode_settled
from fairway.proof.verify import Verification, documents_of, verify
from fairway.runtime.files import atomic_write
from fairway.runtime.progress import Progress, silent
from fairway.text import text_sha256
from fairway.tokens.shards import DataFolder
from fairway.tokens.val_text import ValText

CHECK_EVERY = 1024  # tokens; a checkpoint costs four bytes


def prove(
    loaded: LoadedModel,
    text: ValText,
    *,
    out: Path,
    evaluate: EvaluateConfig | None = None,
    num_targets: int | None = None,
    num_documents: int | None = None,
    learned: Chunks | None = None,
    seed: int = 0,
    threads: int = 1,
    guard: bool = True,
    progress: Progress = silent,
) -> Certificate:
    """Write a proof of the first tokens (or documents, or all) to `out`, and decode it again.

    loaded         the model, loaded from its artifact
    text           the whole text that is evaluated, from its first BOS on
    evaluate       how to predict; None: as the artifact says
    num_targets    how many tokens to prove, the first token of all not counted
    num_documents  how many documents to prove; at most one of the two
    learned        the chunks that an evaluation under a clock learned from, as runs [first, stop):
                   its score is claimed then; None claims that of learning from all
    threads        more than one helps wide models only; in native arithmetic the decoder must use
                   as many
    guard          in settled arithmetic, read a sample in another process, otherwise in all that
                   may differ, and refuse where that comes near the margins
    """
    context, bos_id = loaded.model.config.train_context, loaded.model.config.bos_id
    config = (evaluate or evaluation_of(loaded)).resolved(context)
    prefix = prefix_of(
        config, text.tokens, bos_id, num_targets=num_targets, num_documents=num_documents
    )
    plans, part = prefix.plans(config), prefix.of(text)
    work = _Work(loaded, config, prefix, part, plans, WalkConfig(pad_to=context, every=CHECK_EVERY))
    with reproducible(threads):
        deviation = None
        if config.settled and guard:
            deviation = seen_deviation(loaded, config, part, seed=seed)
        encode = _encode_settled if config.settled else _encode_native
        made = encode(work, learned, seed, progress)
    file = ProofFile(
        artifact_sha256=loaded.sha256,
        text_sha256=text_sha256(documents_of(part.tokens.long(), loaded.tokenizer)),
        evaluate=config,
        seed=seed,
        prefix=prefix,
        walk=work.walk,
        threads=threads,
        circumstances=circumstances(),
        checkpoints=made.encoded.checkpoints,
        symbols=made.encoded.data,
        learned=None if learned is None else tuple(learned),
        settled=made.margins,
        ties=made.ties,
    )
    atomic_write(Path(out), file.to_bytes())
    started = time.perf_counter()
    decoded = _decoded(out, loaded, progress)
    decode_seconds = time.perf_counter() - started
    return _certificate(file, Path(out), made, deviation, part.tokens, decoded, decode_seconds)


class _Work(NamedTuple):
    """What is encoded, and how."""

    loaded: LoadedModel
    config: EvaluateConfig
    prefix: Prefix
    part: ValText
    plans: list[ChunkPlan]
    walk: WalkConfig


class _Made(NamedTuple):
    """What encoding made."""

    encoded: Encoded
    claim: Score
    seconds: float
    margins: Margins | None = None
    ties: Ties = Ties()


def _encode_native(work: _Work, learned: Chunks | None, seed: int, progress: Progress) -> _Made:
    """Scored in batches for the claim, then token by token for the bits."""

    def new_predictor() -> Predictor:
        return following(make_predictor(work.loaded.model, work.config, seed=seed), learned)

    claim = score_stream(new_predictor(), read_chunks(work.plans, work.part))
    started = time.perf_counter()
    encoded = encode_stream(
        new_predictor,
        work.plans,
        work.part.tokens.long(),
        work.walk,
        given=work.prefix.given(work.loaded.model.config.bos_id),
        progress=progress,
    )
    return _Made(encoded, claim, time.perf_counter() - started)


def _encode_settled(work: _Work, learned: Chunks | None, seed: int, progress: Progress) -> _Made:
    """Scored in batches, which gives the bits as well."""
    started = time.perf_counter()
    predictor = make_settled_predictor(work.loaded.model, work.config, seed=seed)
    found = encode_settled(
        predictor, work.plans, work.part, work.walk, learned=learned, progress=progress
    )
    seconds = time.perf_counter() - started
    return _Made(found.encoded, found.score, seconds, predictor.ledger.margins, found.ties)


def _decoded(file: Path, loaded: LoadedModel, progress: Progress) -> Verification | None:
    """What the proof decodes to, knowing nothing but two files; None where it does not."""
    if loaded.path is not None:
        loaded = load_model(loaded.path)
    try:
        return verify(file, loaded, progress)
    except NotReproducible:
        return None


def evaluation_of(loaded: LoadedModel) -> EvaluateConfig:
    """How the artifact says that it is to be evaluated."""
    if not loaded.evaluate:
        raise ValueError(
            f"{loaded.path or 'the model'} does not say how it is evaluated; name a recipe's "
            "evaluation, or pass evaluate=EvaluateConfig(context=...)"
        )
    config = config_from_json(EvaluateConfig, loaded.evaluate)
    check_evaluation(config)
    return config


def validation_text(loaded: LoadedModel, data: DataFolder) -> ValText:
    """A data folder's validation text, which the model's own tokenizer must have cut."""
    if data.tokenizer.to_bytes() != loaded.tokenizer.to_bytes():
        raise ValueError(
            f"{data.path} was made with another tokenizer than {loaded.path or 'the model'}; "
            "prepare the text with the model's own"
        )
    return ValText.of(data)


def _certificate(
    file: ProofFile,
    path: Path,
    made: _Made,
    deviation: Deviation | None,
    tokens: Tensor,
    decoded: Verification | None,
    decode_seconds: float,
) -> Certificate:
    claim, coded_bytes, settled = made.claim, len(file.symbols) + file.tie_bytes, None
    if file.settled is not None:
        settled = SettledFacts(
            margin=file.settled.logit,
            state_margin=file.settled.state,
            state_bits=file.settled.state_bits,
            deviation=None if deviation is None else deviation.logit,
            state_deviation=None if deviation is None else deviation.state,
            ties=len(file.ties),
            tie_bytes=file.tie_bytes,
        )
    return Certificate(
        artifact_sha256=file.artifact_sha256,
        text_sha256=file.text_sha256,
        bitstream_sha256=hashlib.sha256(file.symbols).hexdigest(),
        num_tokens=claim.num_tokens,
        num_bytes=claim.num_bytes,
        text_bytes=0 if decoded is None else decoded.text_bytes,
        coded_bytes=coded_bytes,
        side_bytes=path.stat().st_size - coded_bytes,
        coded_bits_per_byte=8 * coded_bytes / claim.num_bytes,
        claimed_bits_per_byte=claim.bits_per_byte,
        read_bits_per_byte=made.encoded.nats / math.log(2) / claim.num_bytes,
        decoded_equal=decoded is not None and torch.equal(decoded.tokens, tokens.long()),
        encode_seconds=made.seconds,
        decode_seconds=decode_seconds,
        threads=file.threads,
        circumstances=file.circumstances,
        settled=settled,
    )
