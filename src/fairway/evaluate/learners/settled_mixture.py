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

from fairway.coding.settled import Slices, log_probs_of
from fairway.evaluate.chunks import Chunk, ChunkPlan
from fairway.evaluate.learners.evidence import rows_of
from fairway.evaluate.learners.gates import Gates
from fairway.evaluate.learners.mixture import (
    Mixture,
    MixturePredictor,
    MixtureReader,
    Scored,
)
from fairway.evaluate.learners.ngram import NgramMemory
from fairway.evaluate.learners.ngram_compiled import new_memory
from fairway.evaluate.learners.settled_mixture_compiled import new_row
from fairway.evaluate.settled import ModelSettledReader, Settled
from fairway.runtime.distributed import Ranks

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
        rows = {row: new_row(self.row_state(row)) for row in rows_of(chunk.plan)}
        offsets, parts = chunk.plan.offsets, np.empty((3, chunk.num_targets), dtype=np.int64)
        for i, model in self._in_order(chunk):
            row, text = rows[chunk.plan.rows[i]], chunk.texts[i]
            row.memory.stand_after(text[: -len(model)].tolist())
            came = text[-len(model) :].numpy()
            parts[:, offsets[i] : offsets[i + 1]] = row.read(model, came)
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


class SettledMixtureReader(MixtureReader):
    """The settled mixture one token at a time, for rows in step."""

    base: ModelSettledReader
    new_row = staticmethod(new_row)

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
