"""Rows of a token stream as training batches, in an order that one integer resumes.

The rows of batch k are a function of the stream, the config and k alone; ranks share them out, so
any number of processes sees the same global batches.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fairway.tokens.shards import TokenStream


class Batch(NamedTuple):
    tokens: Tensor  # (B, T) int64
    targets: Tensor  # (B, T) int64: the same rows, one token on


@dataclass(frozen=True, kw_only=True)
class OrderConfig:
    """sequential: file order; shuffled: a random order with a random offset each epoch (#1394);
    coprime: blocks visited with a stride coprime to their number (#1060);
    packed: rows at random that begin at a document's BOS;
    documents: each shard as one text from its first BOS on, in file order, the rows of a batch
    following each other; a shard's end that is no whole number of batches is left out (#1530)."""

    # in which training rows come; what each means stands above
    order: Literal["sequential", "shuffled", "coprime", "packed", "documents"] = "shuffled"
    seed: int = 0  # decides what is random about the order; nothing in sequential and documents
    # number of batches that `documents` takes from a shard at once or not at all: the processes of
    # a published run, whatever ours are
    together: int = 1

    def __post_init__(self) -> None:
        if self.together < 1:
            raise ValueError(f"OrderConfig.together={self.together} must be at least 1")


class Batches:
    """Endless batches of `rows` (over all ranks) rows of `context` tokens.

    Raises ValueError when the stream is shorter than one row or the rows do not divide by ranks.
    """

    def __init__(
        self,
        stream: TokenStream | np.ndarray,
        config: OrderConfig,
        *,
        rows: int,
        context: int,
        bos_id: int = 1,
        rank: int = 0,
        world_size: int = 1,
        position: int = 0,
    ) -> None:
        if len(stream) < context + 1:
            raise ValueError(
                f"the text has {len(stream):,} tokens, less than one context of {context} and its "
                "last target; give more text or a shorter context"
            )
        if rows % world_size:
            raise ValueError(f"{rows} rows a batch do not divide among {world_size} ranks")
        self.stream, self.config = stream, config
        self.rows, self.context = rows, context
        self.rank, self.world_size = rank, world_size
        self.position = position
        self._epoch, self._starts = -1, np.zeros(0, np.int64)
        self._opens = np.zeros(0, np.int64)
        self._texts: list[tuple[int, int]] = []
        if config.order == "documents":
            self._texts = self._whole_batches(bos_id)
            self.rows_per_epoch = rows * sum(count for _, count in self._texts)
            return
        if config.order == "packed":
            opens = np.flatnonzero(stream[: len(stream)] == bos_id)
            self._opens = opens[opens + context < len(stream)]
            if not len(self._opens):
                raise ValueError("no document is followed by a full context; use another order")
        self.rows_per_epoch = len(self._starts_of(0))

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        batch = self.at(self.position)
        self.position += 1
        return batch

    def at(self, index: int) -> Batch:
        """This rank's rows of global batch `index`."""
        if self._texts:
            return self._one_text(index)
        wanted = range(index * self.rows + self.rank, (index + 1) * self.rows, self.world_size)
        rows = np.stack([self._row(number) for number in wanted]).astype(np.int64)
        tokens = torch.from_numpy(rows)
        return Batch(tokens[:, :-1], tokens[:, 1:])

    def _whole_batches(self, bos_id: int) -> list[tuple[int, int]]:
        """Of each shard where its first document begins and how many batches follow from there."""
        shards = self.stream.shards if isinstance(self.stream, TokenStream) else [self.stream]
        # Batches do not share a token: the last target of one is not the first input of the next.
        needed = self.config.together * (self.rows * self.context + 1)
        texts, begin = [], 0
        for shard in shards:
            opens = np.flatnonzero(np.asarray(shard) == bos_id)
            if len(opens):
                first = int(opens[0])
                count = (len(shard) - first) // needed * self.config.together
                texts.append((begin + first, count))
            begin += len(shard)
        if not any(count for _, count in texts):
            raise ValueError(
                f"no shard has the {needed:,} tokens of {self.config.together} batches in one "
                f"piece; lower tokens.order.together or train.batch.rows, or take another order"
            )
        return texts

    def _one_text(self, index: int) -> Batch:
        """Rows that follow each other: row r + 1 goes on where row r ends."""
        ends = np.cumsum([count for _, count in self._texts])
        place = index % int(ends[-1])
        shard = int(np.searchsorted(ends, place, side="right"))
        begin, count = self._texts[shard]
        size = self.rows * self.context
        start = begin + (place - int(ends[shard]) + count) * (size + 1)
        text = torch.from_numpy(self.stream[start : start + size + 1].astype(np.int64))
        mine = slice(self.rank, None, self.world_size)
        shape = (self.rows, self.context)
        return Batch(text[:-1].view(shape)[mine], text[1:].view(shape)[mine])

    def _row(self, number: int) -> np.ndarray:
        # Every epoch has as many rows as the first, so a row's number tells its epoch.
        epoch, place = divmod(number, self.rows_per_epoch)
        if epoch != self._epoch:
            self._epoch, self._starts = epoch, self._starts_of(epoch)
        start = int(self._starts[place])
        return self.stream[start : start + self.context + 1]

    def _starts_of(self, epoch: int) -> np.ndarray:
        # One row fewer than fits, so that a random offset never costs a row.
        count = max(1, (len(self.stream) - 1) // self.context - 1)
        starts = np.arange(count, dtype=np.int64) * self.context
        random = np.random.default_rng((self.config.seed, epoch))
        match self.config.order:
            case "sequential":
                return starts
            case "packed":
                return random.permutation(self._opens)
            case "shuffled":
                room = len(self.stream) - 1 - count * self.context
                offset = int(random.integers(min(room, self.context - 1) + 1))
                return random.permutation(starts) + offset
            case "coprime":
                stride = max(1, int(count * 0.618))
                while math.gcd(stride, count) != 1:
                    stride += 1
                first = int(random.integers(count))
                return starts[(first + np.arange(count) * stride) % count]
            case "documents":
                raise AssertionError("whole texts have no rows to be ordered")
