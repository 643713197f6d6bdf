"""A scored model as a compressor for any file: bytes in, fewer bytes out, the same bytes back.

The file is one document. It is cut into segments that are coded side by side, few where the size
counts and many where time does, and the model may learn from it on the way exactly as it does when
it is evaluated. The layout of the bytes is in `artifact/sections.py`, the coding in `bitstream.py`.
"""

import hashlib
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fairway.artifact.config_json import config_from_json, config_to_json
from fairway.artifact.loaded_model import LoadedModel
from fairway.artifact.sections import Refused, Section, pack_frame, unpack_frame
from fairway.evaluate.chunks import ChunkPlan
from fairway.evaluate.config import (
    Arithmetic,
    EvaluateConfig,
    make_predictor,
    make_settled_predictor,
)
from fairway.evaluate.ledger import Ledger, Margins, Ties
from fairway.evaluate.predictor import Predictor
from fairway.proof.bitstream import Encoded, WalkConfig, decode_stream, encode_stream
from fairway.proof.decoder_limits import MOST_FILE, check_coding, check_facts
from fairway.proof.guard import Guard, deviation_here
from fairway.proof.prove import evaluation_of
from fairway.proof.reproducible import NotReproducible, circumstances, reproducible
from fairway.proof.sample import FEW_TARGETS
from fairway.proof.segments import choose_segments, plan_segments, segment_bounds, share_of
from fairway.proof.settled_stream import encode_settled
from fairway.proof.stored import is_stored, store, stored
from fairway.proof.ties import read_ties, tie_sections, with_margins
from fairway.proof.verify import check_model, explained
from fairway.runtime.files import atomic_write, read_file, require_other, require_writable
from fairway.runtime.progress import Progress, silent
from fairway.tokens.val_text import ValText

MAGIC = b"FWC2"
MOST_THREADS = 4  # that pay where a step is one token
# Circumstances worth their bytes in a small file.
RECORDED = ("instructions", "torch", "fairway", "kernels")


@dataclass(frozen=True, kw_only=True)
class CompressConfig:
    """How to compress.

    segments  coded side by side; None: one for each 16,384 tokens, at most 32
    adapt     learn from the file on the way, as the artifact's evaluation does; needs more time
    threads   in native arithmetic, decompressing must use as many; None: one, or, settled, as many
              as this process has, up to four
    every     tokens between two checkpoints of four bytes
    arithmetic  settled: opens on any machine; native: on the like of this one alone
    guard     in settled arithmetic, compute the beginning otherwise as well, in another process
              where the model learns, and refuse to write what another machine might not open
    """

    segments: int | None = None
    adapt: bool = True
    threads: int | None = None
    every: int = 4096
    arithmetic: Arithmetic = "settled"
    guard: bool = True

    def __post_init__(self) -> None:
        counts = (self.segments, self.threads, self.every)
        if any(count is not None and count < 1 for count in counts):
            raise ValueError(
                f"segments={self.segments}, threads={self.threads}, every={self.every}: each must "
                "be at least 1"
            )


@dataclass(frozen=True, kw_only=True)
class _Header:
    """What a decompressor has to know before the first bit."""

    model: str
    text: str
    num_tokens: int
    segments: int
    adapt: bool
    threads: int
    every: int
    made: dict[str, str]
    settled: Margins | None = None
    unguarded: bool = False  # settled, and nobody looked whether other machines agree


def compress(
    loaded: LoadedModel,
    data: bytes,
    config: CompressConfig | None = None,
    progress: Progress = silent,
) -> bytes:
    """The compressed form of any bytes, for `decompress` with the same model: at most 8 bytes more.

    Raises ValueError when the model's tokenizer cannot give back all bytes, and when another
    machine might not be able to (`CompressConfig.guard`).
    """
    return min(code(loaded, data, config, progress), store(data), key=len)


def code(
    loaded: LoadedModel,
    data: bytes,
    config: CompressConfig | None = None,
    progress: Progress = silent,
) -> bytes:
    """The same in the model's own code, however long that is."""
    config = config or CompressConfig()
    tokenizer = loaded.tokenizer
    if not tokenizer.lossless:
        raise ValueError(
            f"the tokenizer of {loaded.path or 'this model'} ({tokenizer.kind}) normalises its "
            "text, so the file would not come back as it was; use a model whose tokenizer "
            "`fairway prepare` trained"
        )
    ids, settled = tokenizer.encode(data), config.arithmetic == "settled"
    header = _Header(
        model=loaded.sha256,
        text=hashlib.sha256(data).hexdigest(),
        num_tokens=len(ids),
        segments=max(1, min(len(ids), config.segments or choose_segments(len(ids)))),
        adapt=config.adapt,
        threads=config.threads or (min(MOST_THREADS, torch.get_num_threads()) if settled else 1),
        every=config.every,
        made={key: circumstances()[key] for key in RECORDED},
        settled=evaluation_of(loaded).learner.margins() if settled else None,
        unguarded=settled and not config.guard,
    )
    _check_coding(loaded, header, None)
    stream = _with_bos(torch.from_numpy(ids.astype(np.int64)), header, tokenizer.bos_id)
    with reproducible(header.threads):
        coded, ties = (_settled if settled else _native)(loaded, header, *stream, progress)
    sections = [
        Section("checkpoints", "stored", np.array(coded.checkpoints, dtype="<u4").tobytes()),
        Section("symbols", "stored", coded.data),
        *ties,
    ]
    told = config_to_json(header)
    for name in ("settled", "unguarded"):
        if not told[name]:
            del told[name]
    packed = pack_frame(MAGIC, told, sections)
    _check_coding(loaded, header, len(coded.checkpoints), len(packed))
    return packed


def _native(
    loaded: LoadedModel, header: _Header, tokens: Tensor, known: Tensor, progress: Progress
) -> tuple[Encoded, list[Section]]:
    """The bits of a stream, of which a decoder knows some tokens; no ties."""
    evaluation, plans, walk = _coding(loaded, header)
    new_predictor = partial(make_predictor, loaded.model, evaluation)
    coded = encode_stream(new_predictor, plans, tokens, walk, given=known, progress=progress)
    return coded, []


def _settled(
    loaded: LoadedModel, header: _Header, tokens: Tensor, known: Tensor, progress: Progress
) -> tuple[Encoded, list[Section]]:
    """The same, and the ties. Raises ValueError where the guard does."""
    evaluation, plans, walk = _coding(loaded, header)
    assert header.settled is not None
    # Bytes belong to scores, not here.
    text = ValText(tokens, torch.zeros(len(tokens) - 1, dtype=torch.long), ())
    predictor = make_settled_predictor(loaded.model, evaluation, ledger=Ledger(header.settled))
    guards = not header.unguarded and header.num_tokens > 0
    learns = evaluation.ttt is not None and len(plans) > 1
    watching = nullcontext()
    if guards and learns:
        watching = Guard(loaded.model, evaluation, text, read_targets=2 * FEW_TARGETS)
    with watching as other:
        found = encode_settled(predictor, plans, text, walk, progress=progress)
        if other is not None:
            other.deviation()
        elif guards:
            deviation_here(loaded.model, evaluation.frozen(), text)
    return found.encoded, tie_sections(found.ties, len(tokens))


def decompress(loaded: LoadedModel, data: bytes, progress: Progress = silent) -> bytes:
    """Inverse of `compress`.

    Raises `Refused` for a damaged or foreign file or another model, and `NotReproducible` when this
    machine computes other probabilities than the one that compressed; never returns wrong bytes.
    """
    if is_stored(data):
        return stored(data)
    frame = unpack_frame(MAGIC, data, "a file that fairway compressed")
    try:
        header = config_from_json(_Header, with_margins(frame.header))
        checkpoints = np.frombuffer(frame.read("checkpoints", len(data)), "<u4").tolist()
        symbols = frame.read("symbols", len(data))
        _check_coding(loaded, header, len(checkpoints), len(data))
        check_facts({"model": header.model, "text": header.text}, header.made)
        length = header.num_tokens + header.segments
        ties = Ties() if header.settled is None else read_ties(frame, length)
    except ValueError as error:
        raise Refused(f"its header is no compressed file's: {error}") from error
    check_model(header.model, loaded, "file")
    unknown = torch.full((header.num_tokens,), -1)
    _, known = _with_bos(unknown, header, loaded.tokenizer.bos_id)
    evaluation, plans, walk = _coding(loaded, header)

    def new_predictor() -> Predictor:
        if header.settled is None:
            return make_predictor(loaded.model, evaluation)
        ledger = Ledger(header.settled, ties)
        return make_settled_predictor(loaded.model, evaluation, ledger=ledger)

    threads = header.threads
    if header.settled is not None:  # any number will do
        threads = min(threads, torch.get_num_threads())
    try:
        with reproducible(threads, header.made if header.settled is None else None):
            tokens = decode_stream(
                new_predictor,
                plans,
                symbols,
                walk,
                given=known,
                checkpoints=checkpoints,
                progress=progress,
            )
    except NotReproducible as error:
        problem = explained(error, header.made)
        unguarded = "; it was compressed with guard=False" if header.unguarded else ""
        raise NotReproducible(f"{problem}{unguarded}") from error
    text = loaded.tokenizer.decode(tokens.tolist())
    if hashlib.sha256(text).hexdigest() != header.text:
        raise Refused(
            "every token came back but the bytes did not: the tokenizer decodes differently; "
            "compare the versions of sentencepiece"
        )
    return text


def compress_file(
    loaded: LoadedModel,
    source: Path,
    target: Path,
    config: CompressConfig | None = None,
    progress: Progress = silent,
) -> int:
    """`compress` from file to file; returns how many bytes were written."""
    require_other(source, target)
    require_writable(target)  # before minutes of work
    packed = compress(loaded, _read(source), config, progress)
    atomic_write(Path(target), packed)
    return len(packed)


def decompress_file(
    loaded: LoadedModel, source: Path, target: Path, progress: Progress = silent
) -> int:
    """`decompress` from file to file, all or nothing; returns how many bytes were written."""
    require_other(source, target)
    require_writable(target)
    try:
        text = decompress(loaded, read_file(Path(source), MOST_FILE), progress)
    except (Refused, NotReproducible) as error:
        raise type(error)(f"{source}: {error}") from error
    atomic_write(Path(target), text)
    return len(text)


def _read(path: Path) -> bytes:
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"no file at {path}")
    return path.read_bytes()


def _bounds(header: _Header) -> list[int]:
    """Edges of the segments, in the stream that has a BOS before each of them."""
    edges = segment_bounds(header.num_tokens, header.segments)
    return [edge + i for i, edge in enumerate(edges)]


def _with_bos(ids: Tensor, header: _Header, bos_id: int) -> tuple[Tensor, Tensor]:
    """The stream of a file's ids, and what of it a decoder knows beforehand (-1 elsewhere)."""
    known = torch.full((header.num_tokens + header.segments,), -1)
    known[_bounds(header)[:-1]] = bos_id
    stream = known.clone()
    stream[known < 0] = ids
    return stream, known


def _check_coding(
    loaded: LoadedModel, header: _Header, checkpoints: int | None, file_bytes: int | None = None
) -> None:
    """ValueError where decoding would take more than its limits."""
    if not 1 <= header.segments <= max(1, header.num_tokens):
        raise ValueError(f"{header.segments:,} segments of {header.num_tokens:,} tokens")
    check_coding(
        num_tokens=header.num_tokens + header.segments,
        every=header.every,
        rows=header.segments,
        threads=header.threads,
        windows=header.num_tokens // evaluation_of(loaded).stride + header.segments,
        checkpoints=checkpoints,
        file_bytes=file_bytes,
    )


def _evaluation(loaded: LoadedModel, header: _Header) -> EvaluateConfig:
    config = evaluation_of(loaded).resolved(loaded.model.config.train_context)
    if header.settled is None:
        config = replace(config, arithmetic="native")
    else:
        config = replace(config, arithmetic="settled", precision="float32")
    if not header.adapt:
        return config.frozen()
    chunk_targets, ttt = config.learner.chunk_targets(), config.ttt
    if ttt is not None and chunk_targets is not None:
        share = share_of(chunk_targets, header.segments, config.stride)
        ttt = ttt.for_segments(share, config.known_context)
    # Adapters live in rows, and each segment needs one of its own.
    return replace(config, rows=max(config.rows, header.segments), ttt=ttt)


def _coding(
    loaded: LoadedModel, header: _Header
) -> tuple[EvaluateConfig, list[ChunkPlan], WalkConfig]:
    """What encoder and decoder share: how to predict, plans, and how the plans are walked."""
    config = _evaluation(loaded, header)
    bounds, every = _bounds(header), config.learner.chunk_targets()
    plans = plan_segments(bounds, config.known_context, config.stride, every)
    pad_to = loaded.model.config.train_context
    walk = WalkConfig(rows=header.segments, pad_to=pad_to, every=header.every)
    return config, plans, walk
