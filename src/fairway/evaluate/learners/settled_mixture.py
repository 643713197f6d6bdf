"""The mixture in settled arithmetic: whole units, and floats that round alike everywhere.

Additions, products and quotients of float64 are fixed to the last bit by IEEE 754, as long as they
come one at a time and in one order. Gates and fading counts are made of nothing else here, so they
need no grid: the model's part arrives as integers, and what is handed on is integers again. Scoring
and reading are one walk, from token to token.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fairway.coding.settled import ONE, Slices, units_of
from fairway.evaluate.chunks import Chunk, ChunkPlan
from fairway.evaluate.learners.gates import NUM_SURPRISES, Gates
from fairway.evaluate.learners.mixture import Mixture, MixturePredictor, RowState
from fairway.evaluate.learners.ngram import Expert, Memory
from fairway.evaluate.settled import ModelSettledReader, Settled

# exp(-0.5), exp(-2), exp(-4): where one class of surprise ends and the next begins, as probability.
_SURPRISING = (0.6065306597126334, 0.1353352832366127, 0.01831563888873418)
_SHARE_BITS = 32
_MOST_HELD = 1 << 26  # numbers of a chunk's distributions held at once
_LN2_HIGH, _LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10  # their sum is ln 2
_TERMS = tuple(1.0 / math.factorial(n) for n in range(14, -1, -1))


def portable_exp(x: float) -> float:
    """e**x to a few last bits, the same ones everywhere: sums and products in a fixed order.

    >>> abs(portable_exp(1.0) - math.e) < 1e-15
    True
    """
    halvings = math.floor(x * 1.4426950408889634 + 0.5)
    rest = (x - halvings * _LN2_HIGH) - halvings * _LN2_LOW
    value = 0.0
    for term in _TERMS:
        value = value * rest + term
    return math.ldexp(value, halvings)


class PortableGates(Gates):
    """Gates whose merging adds up in one order."""

    def merge(self, others: Sequence[Gates]) -> None:
        for gate in range(len(self.below)):
            mine = self.below[gate], self.above[gate]
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
        self.gates = PortableGates(
            self.memory.orders_of_kinds(), memory=config.memory, open=config.open
        )
        self.ledger = base.ledger
        self.scored = base.scored
        self._walked: tuple[Chunk, dict[int, _Row]] | None = None

    def _new_memory(self) -> Memory:
        vocab_size = self.base.model.config.vocab_size
        return Memory(self.config.orders, self.config.fade, vocab_size, exp=portable_exp)

    @torch.inference_mode()
    def score(self, chunk: Chunk) -> Tensor:
        rows: dict[int, _Row] = {}
        offsets, parts = chunk.plan.offsets, np.empty((3, chunk.num_targets), dtype=np.int64)
        for i, ends in self._in_order(chunk):
            number = chunk.plan.rows[i]
            if number not in rows:
                rows[number] = _Row(self.row_state(number))
            row, text = rows[number], chunk.texts[i].tolist()
            row.memory.stand_after(text[: -len(ends)])
            for place, token in enumerate(text[-len(ends) :]):
                mixed = row.look(ends[place])
                start = mixed[token - 1] if token else 0
                parts[:, offsets[i] + place] = start, mixed[token] - start, mixed[-1]
                row.push(token)
        self._walked = chunk, rows
        self.scored = Slices(*torch.from_numpy(parts))
        return self.scored.nats()

    def _in_order(self, chunk: Chunk) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """The model's windows in the plan's order, with (targets, V) ends."""
        ranks, vocab = self.ranks, self.base.model.config.vocab_size
        for members in self._pieces(chunk.plan, vocab):
            part = Chunk(
                replace(
                    chunk.plan,
                    windows=tuple(chunk.plan.windows[i] for i in members),
                    rows=tuple(chunk.plan.rows[i] for i in members),
                ),
                tuple(chunk.texts[i] for i in members),
                chunk.span_texts,
                chunk.num_bytes,
            )
            offsets = part.plan.offsets
            held = torch.zeros(offsets[-1], vocab, dtype=torch.int32)
            for place, ends in self.base.distributions(part):
                held[offsets[place] : offsets[place + 1]] = ends.cpu()
            held = ranks.sum(held).numpy()
            for place, i in enumerate(members):
                yield i, held[offsets[place] : offsets[place + 1]].astype(np.int64)

    def _pieces(self, plan: ChunkPlan, vocab: int) -> Iterator[range]:
        """Windows whose distributions fit into memory together."""
        if getattr(self.base.base, "cached", None) is not None:
            yield range(len(plan.windows))  # which windows share keys is counted within a chunk
            return
        begin = held = 0
        for i, window in enumerate(plan.windows):
            held += window.num_targets * vocab
            if held > _MOST_HELD and i > begin:
                yield range(begin, i)
                begin, held = i, window.num_targets * vocab
        yield range(begin, len(plan.windows))

    @property
    def ranks(self):  # noqa: ANN201
        return self.base.ranks

    def learn(self, chunk: Chunk) -> None:
        if self._walked is None or self._walked[0] is not chunk:
            self.score(chunk)
        assert self._walked is not None
        for number, row in self._walked[1].items():
            row_state = self.row_states.setdefault(number, self.row_state(number))
            row_state.gates = row.gates
        self._keep_text(chunk)
        self._walked = None
        self._close(chunk.plan)
        self.base.learn(chunk)

    def reader(self, plan: ChunkPlan) -> "SettledMixtureReader":
        return SettledMixtureReader(self, plan)


class _Row:
    """Where one row stands: its memory, its gates, and what they say of the next token."""

    def __init__(self, row_state: RowState) -> None:
        self.memory, self.gates = row_state.memory, row_state.gates
        self.targets_left = 0
        self.position = 0  # in the stream, of the next target
        self.experts: list[Expert] = []
        self.chosen: list[int] = []
        self.model = np.ones(1, dtype=np.int64)  # (V,) where the model's slices end

    def look(self, model: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where the mixture's slices end (V,), given where the model's do (V,)."""
        self.model = model
        self.experts = self.memory.experts()
        self.chosen = [
            expert.kind * NUM_SURPRISES + self._surprise(expert.pointed) for expert in self.experts
        ]
        added = np.ones(len(model), dtype=np.int64)  # nothing is impossible
        weight = 1.0  # of what is not yet shared out, from the most specific expert downwards
        for gate, expert in zip(reversed(self.chosen), reversed(self.experts), strict=True):
            share = self.gates[gate]
            _add_units(expert, added, int(weight * (1.0 - share) * ONE))
            weight *= share
        ends = np.cumsum(added)
        ends += model * int(weight * (1 << _SHARE_BITS)) >> _SHARE_BITS
        return ends

    def push(self, token: int) -> None:
        ahead = [expert.probability(token) for expert in self.experts]
        _, shares = self.gates.chain(self.chosen, ahead, self._probability(token))
        self.gates.learn(self.chosen, shares)
        self.memory.push(token)
        self.targets_left -= 1
        self.position += 1

    def _surprise(self, pointed: int) -> int:
        """Class of the model's surprise at a token; 0 where there is none."""
        if pointed < 0:
            return 0
        p = self._probability(pointed)
        return sum(p < limit for limit in _SURPRISING)

    def _probability(self, token: int) -> float:
        """What the model gives it."""
        before = int(self.model[token - 1]) if token else 0
        return (int(self.model[token]) - before) / int(self.model[-1])


def _add_units(expert: Expert, units: NDArray[np.int64], amount: int) -> None:
    """Share so many units out as the expert would, each token's part rounded down."""
    counts = expert.counts
    if isinstance(counts, int):
        units[counts] += amount
        return
    tokens = np.fromiter(counts, np.int64, len(counts))
    if isinstance(expert.total, int):
        numbers = np.fromiter(counts.values(), np.int64, len(counts))
        units[tokens] += numbers * amount // expert.total
    else:
        weights = np.fromiter(counts.values(), np.float64, len(counts))
        units[tokens] += (weights * (amount / expert.total)).astype(np.int64)


class SettledMixtureReader:
    """The settled mixture one token at a time, for rows in step."""

    def __init__(self, predictor: SettledMixture, plan: ChunkPlan) -> None:
        self.predictor, self.plan = predictor, plan
        self.base: ModelSettledReader = predictor.base.reader(plan)
        self.rows: dict[int, _Row] = {}  # of the plan; they outlive the windows opened in them
        self.open: list[_Row] = []
        self.mixed: Tensor | None = None

    def start(self, windows: Sequence[int], histories: Tensor) -> None:
        self.base.start(windows, histories)
        self.open, self.mixed = [], None
        for i, history in zip(windows, histories.tolist(), strict=True):
            window, number = self.plan.windows[i], self.plan.rows[i]
            if number not in self.rows:
                self.rows[number] = _Row(self.predictor.row_state(number))
            row = self.rows[number]
            if row.targets_left == 1:  # nobody had to push a window's last token
                row.push(history[row.position - window.start])
            row.memory.stand_after(history)
            row.targets_left, row.position = window.num_targets, window.score_from
            self.open.append(row)

    def ends(self) -> Tensor:
        if self.mixed is None:
            model = self.base.ends().numpy()
            mixed = [row.look(ends) for row, ends in zip(self.open, model, strict=True)]
            self.mixed = torch.from_numpy(np.stack(mixed))
        return self.mixed

    def log_probs(self) -> Tensor:
        units = units_of(self.ends()).double()
        return (units / units.sum(-1, keepdim=True)).log()

    def push(self, tokens: Tensor) -> None:
        self.ends()  # what comes is learned from beside what was expected
        for row, token in zip(self.open, tokens.tolist(), strict=True):
            if row.targets_left:  # else it idles until the others of its step have ended
                row.push(token)
        self.base.push(tokens)
        self.mixed = None
