"""The mixture in settled arithmetic: floats that round alike everywhere, and then integers.

Sums, products and quotients of float64 are fixed to the last bit by IEEE 754, as long as they come
one at a time and in one order. Gates, counts and the joining of distributions are made of nothing
else, so they need no grid: the model's part arrives as integers, and what is handed on is integers
again. Scoring and reading are one walk, from token to token.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fairway.coding.settled import ONE, Slices, log_probs_of
from fairway.evaluate.chunks import Chunk, ChunkPlan
from fairway.evaluate.learners.evidence import rows_of
from fairway.evaluate.learners.gates import NUM_SURPRISES, Gates
from fairway.evaluate.learners.mixture import (
    Mixture,
    MixturePredictor,
    MixtureReader,
    MixtureRow,
    Scored,
)
from fairway.evaluate.learners.ngram import NgramMemory
from fairway.evaluate.learners.ngram_compiled import new_memory
from fairway.evaluate.settled import ModelSettledReader, Settled
from fairway.runtime.distributed import Ranks

# exp(-0.5), exp(-2), exp(-4): where one class of surprise ends and the next begins, as probability.
_SURPRISING = np.array([0.6065306597126334, 0.1353352832366127, 0.01831563888873418])
_MOST_HELD = 1 << 26  # numbers of a chunk's distributions held at once


class PortableGates(Gates):
    """Gates whose merging adds up in one order."""

    def merge(self, others: Sequence[Gates]) -> None:
        for gate, mine in enumerate(zip(self.below, self.above, strict=True)):
            found = [(other.below[gate], other.above[gate]) for other in others]
            learned = [pair for pair in found if pair != mine]
            if learned:
                below = above = 0.0
                for pair in learned:
                    below, above = below + pair[0], above + pair[1]
                self.below[gate] = below / len(learned)
                self.above[gate] = above / len(learned)


class SettledMixture(MixturePredictor):
    """`MixturePredictor` over a settled predictor, itself one."""

    base: Settled

    def __init__(self, base: Settled, config: Mixture) -> None:
        super().__init__(base, config)
        kinds = self.memory.orders_of_kinds()
        self.gates = PortableGates(kinds, memory=config.memory, open=config.open)
        self.model, self.ledger, self.scored = base.model, base.ledger, base.scored
        self._slices = base.scored

    @property
    def ranks(self) -> Ranks:
        return self.base.ranks

    def _new_memory(self) -> NgramMemory:
        vocab_size = self.base.model.config.vocab_size
        return new_memory(self.config.orders, self.config.fade, vocab_size, portable=True)

    def score(self, chunk: Chunk) -> Tensor:
        nats = super().score(chunk)
        self.scored = self._slices
        return nats

    @torch.inference_mode()
    def _score(self, chunk: Chunk) -> Scored:
        if self._scored is not None and self._scored.chunk is chunk:
            return self._scored
        rows = {row: SettledRow(self.row_state(row)) for row in rows_of(chunk.plan)}
        offsets, parts = chunk.plan.offsets, np.empty((3, chunk.num_targets), dtype=np.int64)
        for i, model in self._in_order(chunk):
            row, text = rows[chunk.plan.rows[i]], chunk.texts[i].tolist()
            row.memory.stand_after(text[: -len(model)])
            row.targets_left = len(model)
            for place, token in enumerate(text[-len(model) :], start=offsets[i]):
                ends = row.settle(model[place - offsets[i]])
                start = ends[token - 1] if token else 0
                parts[:, place] = start, ends[token] - start, ends[-1]
                row.push(token)
        self._slices = Slices(*torch.from_numpy(parts))
        states = {number: row.state for number, row in rows.items()}
        self._scored = Scored(chunk, self._slices.nats(), states)
        return self._scored

    def _in_order(self, chunk: Chunk) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """The model's windows in the plan's order, with where its slices end: (targets, V)."""
        vocab = self.base.model.config.vocab_size
        for members in self._pieces(chunk.plan, vocab):
            plan = replace(
                chunk.plan,
                windows=tuple(chunk.plan.windows[i] for i in members),
                rows=tuple(chunk.plan.rows[i] for i in members),
                ends=tuple(chunk.plan.ends[i] for i in members if chunk.plan.ends),
                places=tuple(chunk.plan.places[i] for i in members if chunk.plan.places),
            )
            texts = tuple(chunk.texts[i] for i in members)
            part, offsets = Chunk(plan, texts, chunk.span_texts, chunk.num_bytes), plan.offsets
            held = torch.zeros(offsets[-1], vocab, dtype=torch.int32)
            for place, ends in self.base.distributions(part):
                held[offsets[place] : offsets[place + 1]] = ends.cpu()
            together = self.ranks.sum(held).numpy()
            for place, i in enumerate(members):
                yield i, together[offsets[place] : offsets[place + 1]].astype(np.int64)

    def _pieces(self, plan: ChunkPlan, vocab: int) -> Iterator[range]:
        """Windows whose distributions fit into memory together."""
        begin = held = 0
        # Which windows share keys is counted within a chunk, so such a chunk is never cut.
        whole = getattr(self.base.base, "cached", None) is not None
        for i, window in enumerate(plan.windows):
            held += window.num_targets * vocab
            if held > _MOST_HELD and i > begin and not whole:
                yield range(begin, i)
                begin, held = i, window.num_targets * vocab
        yield range(begin, len(plan.windows))

    def reader(self, plan: ChunkPlan) -> "SettledMixtureReader":
        return SettledMixtureReader(self, plan)


class SettledRow(MixtureRow):
    """A row whose model, and whose mixture, are slices."""

    def look(self, given: Tensor) -> NDArray[np.int64]:
        """Where the mixture's slices end (V,), given where the model's do (V,)."""
        return self.settle(given.numpy())

    def settle(self, model: NDArray[np.int64]) -> NDArray[np.int64]:
        """`look` at an array."""
        self.model = np.diff(model, prepend=0) / model[-1]
        kinds, pointed = self.memory.suggestions()
        surprise = (self.model[pointed, None] < _SURPRISING).sum(1)
        self.chosen = kinds * NUM_SURPRISES + np.where(pointed < 0, 0, surprise)
        mixed = self.memory.join(self.gates.kept(self.chosen), self.model)
        mixed *= ONE
        units = mixed.astype(np.int64)
        units += 1  # nothing is impossible
        return np.cumsum(units)


class SettledMixtureReader(MixtureReader):
    """The settled mixture one token at a time, for rows in step."""

    base: ModelSettledReader
    row_type = SettledRow

    def ends(self) -> Tensor:
        if self.mixed is None:
            model = self.base.ends()
            settled = [row.look(ends) for row, ends in zip(self.open, model, strict=True)]
            self.mixed = torch.from_numpy(np.stack(settled))
        return self.mixed

    def log_probs(self) -> Tensor:
        return log_probs_of(self.ends())

    def push(self, tokens: Tensor) -> None:
        self.ends()  # what comes is learned from beside what was expected
        self._push(tokens)
