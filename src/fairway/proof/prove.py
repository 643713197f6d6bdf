"""Turn a score into the code it claims to be the length of, and decode that code again.

    score in batches ──> claim
    the same predictor, token by token ──> bitstream ──> file ──> `verify` ──> the text again

The certificate says yes only if the text came back and the bitstream is as long as claimed.
"""

import hashlib
import math
import time
from pathlib import Path

import torch
from torch import Tensor

from fairway.artifact.config_json import config_from_json
from fairway.artifact.loaded_model import LoadedModel, load_model
from fairway.evaluate.bpb import Score
from fairway.evaluate.chunks import read_chunks
from fairway.evaluate.clocked import Chunks, following
from fairway.evaluate.config import EvaluateConfig, make_predictor
from fairway.evaluate.predictor import Predictor, score_stream
from fairway.proof.bitstream import Encoded, WalkConfig, encode_stream
from fairway.proof.certificate import Certificate
from fairway.proof.decoder_limits import check_evaluation
from fairway.proof.prefix import prefix_of
from fairway.proof.proof_file import ProofFile
from fairway.proof.reproducible import NotReproducible, circumstances, reproducible
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
    threads        more than one helps wide models only, and the decoder must use as many
    """
    context, bos_id = loaded.model.config.train_context, loaded.model.config.bos_id
    config = (evaluate or evaluation_of(loaded)).resolved(context)
    prefix = prefix_of(
        config, text.tokens, bos_id, num_targets=num_targets, num_documents=num_documents
    )
    plans, part = prefix.plans(config), prefix.of(text)
    tokens = part.tokens.long()
    walk = WalkConfig(pad_to=context, every=CHECK_EVERY)

    def new_predictor() -> Predictor:
        return following(make_predictor(loaded.model, config, seed=seed), learned)

    with reproducible(threads):
        chunks = read_chunks(plans, part)
        claim = score_stream(new_predictor(), chunks)
        started = time.perf_counter()
        encoded = encode_stream(
            new_predictor,
            plans,
            tokens,
            walk,
            given=prefix.given(bos_id),
            progress=progress,
        )
        encode_seconds = time.perf_counter() - started
    file = ProofFile(
        artifact_sha256=loaded.sha256,
        text_sha256=text_sha256(documents_of(tokens, loaded.tokenizer)),
        evaluate=config,
        seed=seed,
        prefix=prefix,
        walk=walk,
        threads=threads,
        circumstances=circumstances(),
        checkpoints=encoded.checkpoints,
        symbols=encoded.data,
        learned=None if learned is None else tuple(learned),
    )
    atomic_write(Path(out), file.to_bytes())
    started = time.perf_counter()
    decoded = _decoded(out, loaded, progress)
    seconds = (encode_seconds, time.perf_counter() - started)
    return _certificate(file, Path(out), claim, encoded, tokens, decoded, seconds)


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
    claim: Score,
    encoded: Encoded,
    tokens: Tensor,
    decoded: Verification | None,
    seconds: tuple[float, float],
) -> Certificate:
    coded_bytes = len(encoded.data)
    return Certificate(
        artifact_sha256=file.artifact_sha256,
        text_sha256=file.text_sha256,
        bitstream_sha256=hashlib.sha256(encoded.data).hexdigest(),
        num_tokens=claim.num_tokens,
        num_bytes=claim.num_bytes,
        text_bytes=0 if decoded is None else decoded.text_bytes,
        coded_bytes=coded_bytes,
        side_bytes=path.stat().st_size - coded_bytes,
        coded_bits_per_byte=8 * coded_bytes / claim.num_bytes,
        claimed_bits_per_byte=claim.bits_per_byte,
        read_bits_per_byte=encoded.nats / math.log(2) / claim.num_bytes,
        decoded_equal=decoded is not None and torch.equal(decoded.tokens, tokens),
        encode_seconds=seconds[0],
        decode_seconds=seconds[1],
        threads=file.threads,
        circumstances=file.circumstances,
    )
