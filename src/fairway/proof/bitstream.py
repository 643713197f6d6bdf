"""Text to bits and back, with the very predictor that is scored, learning as it goes.

Encoder and decoder are one walk. It asks a source for each token: the encoder's source knows it and
writes it down, the decoder's reads it off the bits. Neither the walk nor the predictor can tell
which of the two it serves, so both see the same shapes in the same order and get the same floats.
Files, headers and hashes are in `proof_file.py` and `verify.py`.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from fairway.coding.symbols import TextDecoder, TextEncoder
from fairway.evaluate.chunks import ChunkPlan, cut_chunk
from fairway.evaluate.ledger import Deviates
from fairway.evaluate.predictor import Predictor, Reader
from fairway.evaluate.window_batch import group_windows
from fairway.proof.reproducible import Checkpoints, Enough, NotReproducible
from fairway.proof.split_reader import SplitReader, distribution
from fairway.runtime.progress import Progress, silent
from fairway.tokens.val_text import ValText


@dataclass(frozen=True, kw_only=True)
class WalkConfig:
    """What encoder and decoder must agree on beside the plans; it travels in the file's header.

    rows     most windows read in step; they must belong to different documents or segments
    pad_to   windows up to this length run in step though some end earlier; beyond the training
             context a window's length decides its rotary angles, so there only equals go together
    every    tokens between two checkpoints
    """

    rows: int = 32
    pad_to: int = 0
    every: int = 2048

    def __post_init__(self) -> None:
        if self.rows < 1 or self.pad_to < 0 or self.every < 1:
            raise ValueError(
                f"rows={self.rows}, pad_to={self.pad_to}, every={self.every}: needs at least one "
                "row, a length of 0 or more, and at least one token between checkpoints"
            )


class Source(Protocol):
    """Where tokens come from."""

    def take(self, positions: Tensor, given: Tensor) -> Tensor:
        """The (n,) int64 tokens at `positions` (n,), coded with log_probs (n, V) float64 or, in
        settled arithmetic, where slices end (n, V) int64."""
        ...


class Known:
    """The encoder's source: looks the token up, and writes it to the bitstream."""

    def __init__(self, tokens: Tensor) -> None:
        self.tokens, self.encoder, self.nats = tokens, TextEncoder(), 0.0

    def take(self, positions: Tensor, given: Tensor) -> Tensor:
        tokens = self.tokens[positions]
        self.encoder.push_many(given.numpy(), tokens.numpy())
        self.nats -= given.gather(1, tokens[:, None]).sum().item()
        return tokens


class Coded:
    """The decoder's source: reads the token off the bitstream."""

    def __init__(self, data: bytes) -> None:
        self.decoder, self.num_tokens = TextDecoder(data), 0

    def take(self, positions: Tensor, given: Tensor) -> Tensor:
        settled = given.dtype == torch.long
        pop = self.decoder.pop_slices if settled else self.decoder.pop_many
        with self._bits_can_be_wrong():
            tokens = torch.from_numpy(pop(given.numpy()))
        self.num_tokens += len(tokens)
        return tokens

    def finish(self) -> None:
        with self._bits_can_be_wrong():
            self.decoder.finish()

    @contextmanager
    def _bits_can_be_wrong(self) -> Iterator[None]:
        try:
            yield
        except ValueError as error:
            raise NotReproducible(f"after {self.num_tokens:,} tokens: {error}") from error


@dataclass(frozen=True)
class Encoded:
    """What `encode_stream` made.

    data         the bitstream
    checkpoints  crc32 of all tokens so far, in the order of coding, every so often and at the end
    nats         what the predictor, read token by token, charged for these tokens
    """

    data: bytes = field(repr=False)
    checkpoints: tuple[int, ...]
    nats: float


def encode_stream(
    new_predictor: Callable[[], Predictor],
    plans: Sequence[ChunkPlan],
    tokens: Tensor,
    config: WalkConfig,
    *,
    given: Tensor,
    progress: Progress = silent,
) -> Encoded:
    """The bits of every target of `plans`, scored by a fresh predictor that learns on the way.

    tokens  (N,) int64, the stream that the plans index
    given   (N,) int64: the tokens a decoder has without reading bits (each document's BOS), and -1
            everywhere else
    """
    source, checkpoints = Known(tokens), Checkpoints(config.every)
    fill_in(new_predictor(), plans, given.clone(), source, checkpoints, config, progress)
    return Encoded(source.encoder.finish(), checkpoints.finish(), source.nats)


def decode_stream(
    new_predictor: Callable[[], Predictor],
    plans: Sequence[ChunkPlan],
    data: bytes,
    config: WalkConfig,
    *,
    given: Tensor,
    checkpoints: Sequence[int],
    batch: int | None = None,
    enough: Callable[[int], bool] = lambda num_tokens: False,
    progress: Progress = silent,
) -> Tensor:
    """The (N,) int64 tokens that `encode_stream` was given, from their bits alone.

    batch   most rows to compute together, for settled arithmetic, which does not depend on it;
            None: as many as stand in step in the stream
    enough  asked at each checkpoint, with the tokens so far, whether to stop there; what was not
            decoded by then is -1

    Raises `NotReproducible` at the first checkpoint where this machine's tokens are not those that
    were coded.
    """
    checked = Checkpoints(config.every, expected=checkpoints, enough=enough)
    tokens, source = given.clone(), Coded(data)
    try:
        fill_in(new_predictor(), plans, tokens, source, checked, config, progress, batch)
    except Enough:
        if bool((tokens < 0).any()):
            return tokens
    except Deviates as error:
        raise NotReproducible(f"after {source.num_tokens:,} tokens: {error}") from error
    checked.finish()
    source.finish()
    return tokens


def fill_in(
    predictor: Predictor,
    plans: Sequence[ChunkPlan],
    tokens: Tensor,
    source: Source,
    checkpoints: Checkpoints,
    config: WalkConfig,
    progress: Progress,
    batch: int | None = None,
) -> None:
    """Fill the unknown places of `tokens` from `source`, chunk after chunk.

    A place not yet filled holds -1, which no embedding accepts: a plan that reads ahead of what it
    has scored fails on the encoder's side too.
    """
    total = sum(plan.num_targets for plan in plans)
    # Bytes belong to scores, not here. The text is filled in while it is read.
    text = ValText(tokens, torch.zeros(max(0, len(tokens) - 1), dtype=torch.long), ())
    for number, plan in enumerate(plans, start=1):
        reader = (
            predictor.reader(plan)
            if batch is None or batch >= config.rows
            else SplitReader(predictor, plan, batch)
        )
        for members in in_step(plan, config.rows, config.pad_to):
            read_in_step(reader, plan, members, tokens, source, checkpoints)
            progress(checkpoints.num_tokens, total)
        if number < len(plans):
            predictor.learn(cut_chunk(plan, text))


def in_step(plan: ChunkPlan, rows: int, pad_to: int) -> Iterator[tuple[int, ...]]:
    """Groups of a plan's windows that can be read side by side, in an order that can be decoded.

    A row's windows follow one another, because each reads what the one before it scored; windows
    of different rows know nothing of each other.
    """
    queues: dict[int, list[int]] = {}
    for i, row in enumerate(plan.rows):
        queues.setdefault(row, []).append(i)
    for turn in range(max(map(len, queues.values()), default=0)):
        ready = [queue[turn] for queue in queues.values() if turn < len(queue)]
        yield from group_windows(plan.windows, ready, rows, pad_to)


def read_in_step(
    reader: Reader,
    plan: ChunkPlan,
    members: tuple[int, ...],
    tokens: Tensor,
    source: Source,
    checkpoints: Checkpoints,
) -> None:
    """Read some windows to their ends, side by side; rows that end earlier idle on token 0."""
    windows = [plan.windows[i] for i in members]
    begins = torch.tensor([window.score_from for window in windows])
    lengths = torch.tensor([window.num_targets for window in windows])
    reader.start(members, torch.stack([tokens[w.start : w.score_from] for w in windows]))
    num_steps = int(lengths.max())
    for step in range(num_steps):
        found, positions = distribution(reader), begins + step
        open_rows = (step < lengths).nonzero()[:, 0]
        if len(open_rows) < len(windows):
            found, positions = found[open_rows], positions[open_rows]
        taken = source.take(positions, found)
        tokens[positions] = taken
        checkpoints.add(taken)
        if step + 1 < num_steps:
            came = torch.zeros(len(windows), dtype=torch.long)
            came[open_rows] = taken
            reader.push(came)
