"""Turn a score into the code it claims to be the length of, and decode that code again.

    score in batches ──> claim
    the same predictor, token by token ──> bitstream ──> file ──> `verify` ──> the text again

The certificate says yes only if the text came back and the bitstream is as long as claimed.
"""

import hashlib
import math
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from fairway.artifact.config_json import config_from_json
from fairway.artifact.loaded_model import LoadedModel, load_model
from fairway.evaluate.clocked import Chunks
from fairway.evaluate.config import EvaluateConfig
from fairway.model.gpt import GPT
from fairway.proof.bitstream import WalkConfig
from fairway.proof.certificate import Certificate, SettledFacts
from fairway.proof.coded import Coded
from fairway.proof.decoder_limits import check_evaluation
from fairway.proof.encode import Part, encode
from fairway.proof.guard import Deviation, Guard
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
    guard: bool = True,
    coded: Coded | None = None,
    decode_seconds: float | None = None,
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
    coded          of the same text and evaluation, where scoring wrote it already (`CodedScore`)
    decode_seconds after which decoding stops, at the next checkpoint; None: all is decoded
    """
    context, bos_id = loaded.model.config.train_context, loaded.model.config.bos_id
    config = (evaluate or evaluation_of(loaded)).resolved(context)
    prefix = prefix_of(
        config, text.tokens, bos_id, num_targets=num_targets, num_documents=num_documents
    )
    part = Part(
        loaded=loaded,
        config=config,
        prefix=prefix,
        text=prefix.of(text),
        walk=walk_of(loaded.model),
        learned=learned,
        seed=seed,
    )
    guards = config.settled and guard
    watching = Guard(loaded.model, config, part.text, seed=seed) if guards else nullcontext()
    with reproducible(threads), watching as other:
        made = coded or encode(part, progress)
        deviation = None if other is None else other.deviation()
    atomic_write(Path(out), _file_of(part, made, threads).to_bytes())
    decoded = _decoded(out, loaded, decode_seconds, progress)
    certificate = _certificate(part, Path(out), made, deviation, decoded)
    return replace(certificate, scope=text.scope or None)


def walk_of(model: GPT) -> WalkConfig:
    """How the text of a proof is walked."""
    return WalkConfig(pad_to=model.config.train_context, every=CHECK_EVERY)


def _file_of(part: Part, made: Coded, threads: int) -> ProofFile:
    documents = documents_of(part.text.tokens.long(), part.loaded.tokenizer)
    return ProofFile(
        artifact_sha256=part.loaded.sha256,
        text_sha256=text_sha256(documents),
        evaluate=part.config,
        seed=part.seed,
        prefix=part.prefix,
        walk=part.walk,
        threads=threads,
        circumstances=circumstances(),
        checkpoints=made.encoded.checkpoints,
        symbols=made.encoded.data,
        learned=None if part.learned is None else tuple(part.learned),
        settled=made.margins,
        ties=made.ties,
    )


def _decoded(
    file: Path, loaded: LoadedModel, seconds: float | None, progress: Progress
) -> Verification | None:
    """What the proof decodes to, knowing nothing but two files; None where it does not."""
    if loaded.path is not None:
        loaded = load_model(loaded.path)
    try:
        return verify(file, loaded, progress, seconds=seconds)
    except NotReproducible:
        return None


def evaluation_of(loaded: LoadedModel) -> EvaluateConfig:
    """How the artifact says that it is to be evaluated."""
    return named_evaluation(loaded.evaluate, loaded.path)


def named_evaluation(settings: Mapping[str, Any], path: Path | None) -> EvaluateConfig:
    """The same of the settings under "evaluate" in the artifact's config."""
    if not settings:
        raise ValueError(
            f"{path or 'the model'} does not say how it is evaluated; name a recipe's "
            "evaluation, or pass evaluate=EvaluateConfig(context=...)"
        )
    config = config_from_json(EvaluateConfig, settings)
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
    part: Part,
    path: Path,
    made: Coded,
    deviation: Deviation | None,
    decoded: Verification | None,
) -> Certificate:
    """Lengths are those of the file as it lies there."""
    data = path.read_bytes()
    file, claim, tokens = ProofFile.from_bytes(data), made.claim, part.text.tokens.long()
    coded_bytes, facts = len(file.symbols) + file.tie_bytes, None
    if file.settled is not None:
        facts = SettledFacts(
            margin=file.settled.logit,
            state_margin=file.settled.state,
            gradient_margin=file.settled.gradient,
            state_bits=file.settled.state_bits,
            deviation=None if deviation is None else deviation.logit,
            state_deviation=None if deviation is None else deviation.state,
            gradient_deviation=None if deviation is None else deviation.gradient,
            ties=len(file.ties),
            tie_bytes=file.tie_bytes,
        )
    known = torch.ones(0) if decoded is None else decoded.tokens >= 0
    part_of_it = None if decoded is None or decoded.whole else decoded
    return Certificate(
        artifact_sha256=file.artifact_sha256,
        text_sha256=file.text_sha256,
        bitstream_sha256=hashlib.sha256(file.symbols).hexdigest(),
        num_tokens=claim.num_tokens,
        num_bytes=claim.num_bytes,
        text_bytes=0 if decoded is None else decoded.text_bytes,
        coded_bytes=coded_bytes,
        side_bytes=len(data) - coded_bytes,
        coded_bits_per_byte=8 * coded_bytes / claim.num_bytes,
        claimed_bits_per_byte=made.claimed_bits_per_byte,
        read_bits_per_byte=made.encoded.nats / math.log(2) / claim.num_bytes,
        decoded_equal=decoded is not None and torch.equal(decoded.tokens[known], tokens[known]),
        encode_seconds=made.seconds,
        decode_seconds=0.0 if decoded is None else decoded.seconds,
        threads=file.threads,
        circumstances=file.circumstances,
        settled=facts,
        decoded_tokens=part_of_it and part_of_it.num_tokens,
        decoded_bytes=part_of_it and int(part.text.target_bytes[known[1:]].sum()),
    )
