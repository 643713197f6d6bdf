"""Decode a proof: model file and proof in, text out, and the text is the one that was claimed.

Nothing is believed that was not recomputed here, and no text is handed on unless its hash is the
one in the proof. How a proof is made is in `prove.py`.
"""

import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from fairway.artifact.loaded_model import LoadedModel
from fairway.artifact.sections import Refused
from fairway.evaluate.clocked import following
from fairway.evaluate.config import make_predictor, make_settled_predictor
from fairway.evaluate.ledger import Ledger
from fairway.evaluate.predictor import Predictor
from fairway.evaluate.settled import settled_model
from fairway.model.gpt import GPT
from fairway.proof.bitstream import decode_stream
from fairway.proof.decoder_limits import MOST_FILE
from fairway.proof.proof_file import ProofFile
from fairway.proof.reproducible import NotReproducible, circumstances, differences, reproducible
from fairway.runtime.files import read_file
from fairway.runtime.progress import Progress, silent
from fairway.text import text_sha256
from fairway.tokens.tokenizer import Tokenizer

TRIAL_STEPS = 20  # tokens that tell how many threads are fastest


@dataclass(frozen=True, kw_only=True, eq=False)
class Verification:
    """A proof that decoded.

    documents            the text, document by document; the last may end in the middle, and if not
                         all was decoded, any of them
    tokens               (N,) int64, the decoded stream; -1 for what was not decoded
    num_tokens           targets decoded: all but the first token, which is given
    coded_bytes          length of the bitstream, the ties of settled arithmetic included
    whole                all was decoded; if not, checkpoints vouch for the rest, and no hash does
    """

    documents: tuple[bytes, ...] = field(repr=False)
    tokens: Tensor = field(repr=False)
    num_tokens: int
    coded_bytes: int
    seconds: float
    whole: bool = True

    @property
    def text_bytes(self) -> int:
        return sum(map(len, self.documents))

    @property
    def coded_bits_per_byte(self) -> float | None:
        """Of the decoded text; nothing that the file says about itself enters. None of a part."""
        return 8 * self.coded_bytes / self.text_bytes if self.whole else None


def verify(
    path: Path,
    loaded: LoadedModel,
    progress: Progress = silent,
    *,
    threads: int | None = None,
    rows: int | None = None,
    any_batch: bool = False,
    seconds: float | None = None,
) -> Verification:
    """Decode the proof at `path` with the model it names.

    threads, rows  to decode with, for proofs in settled arithmetic, which go with any: None takes
                   those of the encoder
    any_batch      instead, what is fastest here: all rows that stand in step, and as many threads
                   as a short trial says; settled arithmetic only
    seconds        after which decoding stops, at the next checkpoint; None: all is decoded

    Raises `Refused` when the file is damaged, is no proof, or was made with another model, and
    `NotReproducible` when this machine computes other probabilities; both before any text is out.
    """
    path = Path(path)
    if not path.is_file():
        raise Refused(f"no proof at {path}; `fairway prove` writes one")
    try:
        proof = ProofFile.from_bytes(read_file(path, MOST_FILE))
        if any_batch:
            threads = threads or _fastest_threads(proof, loaded.model)
        return decode_proof(proof, loaded, progress, threads=threads, rows=rows, seconds=seconds)
    except (Refused, NotReproducible) as error:
        raise type(error)(f"{path}: {error}") from error


def decode_proof(
    proof: ProofFile,
    loaded: LoadedModel,
    progress: Progress = silent,
    *,
    threads: int | None = None,
    rows: int | None = None,
    seconds: float | None = None,
) -> Verification:
    """The text of a proof; see `verify`."""
    for name, least in (("threads", threads), ("rows", rows)):
        if least is not None and least < 1:
            raise ValueError(f"{name}={least}: one is the least")
    if seconds is not None and seconds < 0:
        raise ValueError(f"seconds={seconds:g}: time does not run backwards")
    if proof.settled is None and (threads, rows) != (None, None):
        raise ValueError(
            "the proof is in native arithmetic, which decodes with the encoder's own threads and "
            "batches only; leave both as they are, or prove with arithmetic='settled'"
        )
    check_model(proof.artifact_sha256, loaded, "proof")
    bos_id, vocab_size = loaded.model.config.bos_id, loaded.model.config.vocab_size
    if proof.prefix.first_token >= vocab_size:
        raise Refused(f"its first token is {proof.prefix.first_token}, of a model's {vocab_size}")
    started, num_tokens = time.perf_counter(), 0

    def enough(so_far: int) -> bool:
        nonlocal num_tokens
        num_tokens = so_far
        return seconds is not None and time.perf_counter() - started >= seconds

    try:
        there = proof.circumstances if proof.settled is None else None
        with reproducible(threads or proof.threads, there):
            tokens = decode_stream(
                predictors(loaded, proof),
                proof.prefix.plans(proof.evaluate),
                proof.symbols,
                proof.walk,
                given=proof.prefix.given(bos_id),
                checkpoints=proof.checkpoints,
                batch=rows,
                enough=enough,
                progress=progress,
            )
    except NotReproducible as error:
        raise explained(error, proof.circumstances) from error
    known = tokens >= 0
    documents, whole = documents_of(tokens[known], loaded.tokenizer), bool(known.all())
    if whole and text_sha256(documents) != proof.text_sha256:
        raise Refused(
            "the decoded text is not the one the proof was made from, though every token is: the "
            "tokenizer turned them into other bytes; compare the versions of sentencepiece"
        )
    return Verification(
        documents=documents,
        tokens=tokens,
        num_tokens=proof.prefix.num_tokens - 1 if whole else num_tokens,
        coded_bytes=len(proof.symbols) + proof.tie_bytes,
        seconds=time.perf_counter() - started,
        whole=whole,
    )


def _fastest_threads(proof: ProofFile, model: GPT) -> int:
    """One thread or all, as rows in step are read sooner: several wait more than they work where
    a model is narrow and rows are few."""
    documents = len(proof.prefix.starts) if proof.evaluate.documents else 1
    rows = max(1, min(proof.walk.rows, documents))
    tried = {1, torch.get_num_threads(), os.cpu_count() or 1}
    return min(tried, key=lambda threads: _step_seconds(settled_model(model), rows, threads))


@torch.inference_mode()
def _step_seconds(model: GPT, rows: int, threads: int) -> float:
    """Of the fastest of a few steps, in the middle of a context."""
    half = max(1, model.config.train_context // 2)
    fastest, token = (
        math.inf,
        torch.zeros(rows, 1, dtype=torch.long, device=model.embed.weight.device),
    )
    with reproducible(threads):
        cache = model.new_cache(rows, half + TRIAL_STEPS)
        model(token.expand(-1, half), start=half - 1, cache=cache)
        for _ in range(TRIAL_STEPS):
            started = time.perf_counter()
            model(token, cache=cache).sum().item()
            fastest = min(fastest, time.perf_counter() - started)
    return fastest


def predictors(loaded: LoadedModel, proof: ProofFile) -> Callable[[], Predictor]:
    """Makes the predictor that a proof was coded with, anew for each walk."""

    def new_predictor() -> Predictor:
        made: Predictor = (
            make_predictor(loaded.model, proof.evaluate, seed=proof.seed)
            if proof.settled is None
            else make_settled_predictor(
                loaded.model,
                proof.evaluate,
                seed=proof.seed,
                ledger=Ledger(proof.settled, proof.ties),
            )
        )
        return following(made, proof.learned)

    return new_predictor


def check_model(sha256: str, loaded: LoadedModel, kind: str) -> None:
    """Raises `Refused` unless `served` is the model with this hash."""
    if loaded.sha256 != sha256:
        raise Refused(
            f"the {kind} was made with the model {sha256[:16]}..., and {loaded.path or 'this one'} "
            f"is {loaded.sha256[:16]}...; give the model file it was made with"
        )


def explained(error: NotReproducible, there: dict[str, str]) -> NotReproducible:
    """The error with what may be its cause: how that machine and this one differ."""
    differing = differences(there, circumstances())
    cause = (
        f"what differs: {differing}"
        if differing
        else "by its description this is the same machine, so something it does not list differs"
    )
    return NotReproducible(f"{error}. {cause}. Nothing was written")


def documents_of(tokens: Tensor, tokenizer: Tokenizer) -> tuple[bytes, ...]:
    """The texts between one BOS and the next; a BOS at the very end opens none."""
    ids = tokens.tolist()
    if ids and ids[-1] == tokenizer.bos_id:
        ids.pop()
    edges = [i for i, token in enumerate(ids) if token == tokenizer.bos_id]
    if not edges or edges[0] != 0:
        edges.insert(0, 0)
    documents = [ids[a:b] for a, b in zip(edges, [*edges[1:], len(ids)], strict=True)]
    return tuple(tokenizer.decode(document) for document in documents)
