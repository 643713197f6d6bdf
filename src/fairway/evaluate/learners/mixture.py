"""A model's distribution mixed with n-gram opinions over the whole vocabulary, by learned gates.

The model stands at the bottom of a chain. Each opinion in turn, from the least to the most specific
context, is mixed in:  p <- gate * p + (1 - gate) * opinion.  Every step joins two distributions
with a weight fixed before the token is known, so what comes out is a distribution, for every token
of the vocabulary and not just the one that came. There is one gate for each kind of opinion; it
learns online (one step of expectation-maximization per token) which of the two tended to be right.

What the contexts are is in `ngram.py`. Any predictor can be at the bottom, frozen or learning.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fairway.evaluate.learners.ngram import Memory, Opinion
from fairway.evaluate.predictor import Chunk, ChunkPlan, Frozen, Reader

# How likely the model held what an opinion points at, as a class of nats: an opinion the model
# shares says little, and one it finds absurd is right more often than the model thinks.
SURPRISES = (1.2, 3.5, 6.0)
NUM_SURPRISES = len(SURPRISES) + 1
TINY = 1e-300  # a model's probability that underflowed is still a probability
FLOOR = 0.01  # evidence for either side that is never forgotten, so that no gate shuts for good


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """Which contexts vote, and how fast votes are reweighed."""

    orders: tuple[int, ...] = (0, 1, 2, 3, 4, 6, 10, 16)  # lengths of the contexts, in tokens
    fade: float = 300.0  # tokens over which recent successors of the shortest contexts fade
    memory: float = 0.99  # of a gate's evidence, what is left when the next comes
    open: float = 0.8  # what a gate lets through from below before it has learned anything

    def __post_init__(self) -> None:
        rising = all(a < b for a, b in pairwise(self.orders))
        if not self.orders or self.orders[0] < 0 or not rising:
            raise ValueError(
                f"orders={self.orders} must be rising lengths of contexts, none below 0; for no "
                "n-grams at all, set mixture=None"
            )
        if self.fade <= 0 or not 0 < self.memory <= 1 or not 0 < self.open < 1:
            raise ValueError(
                f"fade={self.fade}, memory={self.memory}, open={self.open}: needs fade > 0, "
                "0 < memory <= 1 and 0 < open < 1"
            )


class Gates:
    """How much each kind of opinion leaves to what lies below it, learned from what came."""

    def __init__(self, num_kinds: int, config: Mixture) -> None:
        self.memory = config.memory
        self.below = [config.open] * (num_kinds * NUM_SURPRISES)  # evidence for what lies below,
        self.above = [1.0 - config.open] * (num_kinds * NUM_SURPRISES)  # and for the opinion
        import os
        n=len(config.orders); K=200
        w=eval(os.environ.get("W","[1]*8"))
        for half in range(2):
            for place in range(n):
                for k in range(K*4):
                    i=(half*n+place)*K*4+k
                    self.above[i]=(1-config.open)*w[place]; self.below[i]=1-self.above[i]

    def copy(self) -> "Gates":
        twin = object.__new__(Gates)
        twin.memory, twin.below, twin.above = self.memory, self.below.copy(), self.above.copy()
        return twin

    def __getitem__(self, gate: int) -> float:
        below, above = self.below[gate] + FLOOR, self.above[gate] + FLOOR
        return below / (below + above)

    def chain(
        self, gates: Sequence[int], opinions: Sequence[float], p: float
    ) -> tuple[float, list[float]]:
        """The mixed probability of one token, and for each step the share that came from below.

        gates     index of each opinion's gate, the least specific first
        opinions  the probability each of them gives the token
        p         what the model gives it
        """
        shares = []
        for gate, opinion in zip(gates, opinions, strict=True):
            kept = self[gate] * p
            p = kept + (1.0 - self[gate]) * opinion
            shares.append(kept / p)
        return p, shares

    def learn(self, gates: Sequence[int], shares: Sequence[float]) -> None:
        """The token came: credit both sides of each gate by the probability that it was theirs."""
        reached = 1.0  # probability that no more specific opinion produced the token
        for gate, share in zip(reversed(gates), reversed(shares), strict=True):
            self.below[gate] = self.below[gate] * self.memory + reached * share
            self.above[gate] = self.above[gate] * self.memory + reached * (1.0 - share)
            reached *= share


def surprise_class(nats: Tensor) -> Tensor:
    """Class of each of a model's prices, 0 .. NUM_SURPRISES - 1, any shape."""
    return torch.bucketize(nats, torch.tensor(SURPRISES, dtype=nats.dtype))


class Evidence(NamedTuple):
    """Opinions about the targets of a chunk in the order of the plan, laid end to end.

    ends     (num_targets,) where each target's opinions end
    kinds    (n,) of each opinion
    ahead    (n,) the probability each gives the token that came
    pointed  (n,) the only token it points at; -1 where it is spread over several
    """

    ends: np.ndarray
    kinds: np.ndarray
    ahead: list[float]
    pointed: np.ndarray


class Settled(NamedTuple):
    """A chunk's evidence beside what the model thinks: all that pricing and learning need."""

    chunk: Chunk
    ends: list[int]
    gates: list[int]
    ahead: list[float]
    model: list[float]  # probability the model gives each target


class MixturePredictor:
    """Any predictor around a model, with n-gram opinions from everything priced so far.

    Within a chunk each row reads what was committed before the chunk and what it itself has read
    since, so that rows may be decoded side by side.
    """

    def __init__(self, base: Frozen, config: Mixture) -> None:
        self.base, self.config = base, config
        vocab_size = base.model.config.vocab_size
        self.memory = Memory(config.orders, config.fade, vocab_size)
        self.gates = Gates(self.memory.num_kinds, config)
        self.history: list[tuple[Tensor, int]] = []  # windows learned: text, how many priced
        self._settled: Settled | None = None  # of the last chunk: a pure function of it, kept

    @torch.inference_mode()
    def score(self, chunk: Chunk) -> Tensor:
        settled = self._settle(chunk)
        nats = torch.empty(chunk.num_targets, dtype=torch.float64)
        offsets = chunk.plan.offsets
        for members in rows_of(chunk.plan):
            gates = self.gates.copy()
            for i in members:
                p = torch.tensor(_walk(settled, offsets[i], offsets[i + 1], gates))
                nats[offsets[i] : offsets[i + 1]] = -p.log()
        return nats

    def learn(self, chunk: Chunk) -> None:
        settled = self._settle(chunk)
        offsets = chunk.plan.offsets
        for members in rows_of(chunk.plan):
            for i in members:
                _walk(settled, offsets[i], offsets[i + 1], self.gates)
                self._commit(chunk.texts[i], chunk.plan.windows[i].num_targets)
        self._settled = None
        self.base.learn(chunk)

    def reader(self, plan: ChunkPlan) -> Reader:
        return MixtureReader(self, plan)

    def _commit(self, text: Tensor, num_targets: int) -> None:
        self.history.append((text, num_targets))
        for _, token in follow(self.memory, text.tolist(), num_targets):
            self.memory.push(token)

    @torch.inference_mode()
    def _settle(self, chunk: Chunk) -> Settled:
        if self._settled is None or self._settled.chunk is not chunk:
            evidence = gather_evidence(self.memory, chunk)
            self._settled = self._ask_model(chunk, evidence)
        return self._settled

    def _ask_model(self, chunk: Chunk, evidence: Evidence) -> Settled:
        """The model's price of every target and of every token that an opinion points at."""
        offsets, ends = chunk.plan.offsets, evidence.ends
        targets = torch.zeros(chunk.num_targets, dtype=torch.float64)
        pointed = torch.zeros(len(evidence.kinds), dtype=torch.float64)
        for one, logits in self.base.passes(chunk):
            log_probs = torch.log_softmax(logits.double(), dim=-1)
            for row, i, length in zip(log_probs, one.members, one.num_targets, strict=True):
                first, last = offsets[i], offsets[i + 1]
                came = chunk.texts[i][-length:].to(row.device)
                targets[first:last] = row[:length].gather(1, came[:, None])[:, 0].cpu()
                begins = np.concatenate(([ends[first - 1] if first else 0], ends[first:last]))
                places = np.repeat(np.arange(length), np.diff(begins))
                tokens = np.maximum(evidence.pointed[begins[0] : begins[-1]], 0)
                chosen = row[torch.from_numpy(places), torch.from_numpy(tokens)]
                pointed[begins[0] : begins[-1]] = chosen.cpu()
        targets = self.base.ranks.sum(targets)
        pointed = self.base.ranks.sum(pointed)
        # Where an opinion points at no one token, nothing but the text before may choose the gate.
        pointed[torch.from_numpy(evidence.pointed) < 0] = 0.0
        gates = torch.from_numpy(evidence.kinds) * NUM_SURPRISES + surprise_class(-pointed)
        model = targets.exp().clamp_min(TINY)
        return Settled(chunk, ends.tolist(), gates.tolist(), evidence.ahead, model.tolist())

    def state_dict(self) -> dict[str, Tensor]:
        none = torch.empty(0, dtype=torch.long)
        texts = [text for text, _ in self.history]
        shape = [(len(text), num_targets) for text, num_targets in self.history]
        gates = torch.tensor([self.gates.below, self.gates.above], dtype=torch.float64)
        base = {f"base/{name}": value for name, value in self.base.state_dict().items()}
        return base | {
            "texts": torch.cat([none, *texts]),
            "shape": torch.tensor(shape, dtype=torch.long).reshape(-1, 2),
            "gates": gates,
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        vocab_size = self.base.model.config.vocab_size
        self.memory = Memory(self.config.orders, self.config.fade, vocab_size)
        self.history, self._settled = [], None
        lengths, num_targets = state["shape"].T.tolist()
        for text, number in zip(state["texts"].split(lengths), num_targets, strict=True):
            self._commit(text, number)
        self.gates.below, self.gates.above = state["gates"].tolist()
        self.base.load_state_dict(
            {name.removeprefix("base/"): t for name, t in state.items() if name.startswith("base/")}
        )


def rows_of(plan: ChunkPlan) -> list[list[int]]:
    """The windows of each row, in order."""
    rows: dict[int, list[int]] = {}
    for i, row in enumerate(plan.rows):
        rows.setdefault(row, []).append(i)
    return list(rows.values())


def follow(memory: Memory, text: Sequence[int], num_targets: int) -> Iterator[tuple[int, int]]:
    """(place, token) of the targets of a window, `memory` standing before each of them.

    Contexts are those of the window's own text: it may be all that a reader of it has seen.
    """
    first = len(text) - num_targets
    memory.stand_after(text[:first])
    for place in range(num_targets):
        yield place, text[first + place]


def gather_evidence(committed: Memory, chunk: Chunk) -> Evidence:
    """What n-grams say about every target of a chunk; `committed` stays as it is."""
    plan, offsets = chunk.plan, chunk.plan.offsets
    found: list[tuple[list[int], list[float], list[int]]] = [([], [], [])] * plan.num_targets
    for members in rows_of(plan):
        memory = committed.branch()
        for i in members:
            targets = plan.windows[i].num_targets
            for place, token in follow(memory, chunk.texts[i].tolist(), targets):
                opinions = memory.opinions()
                found[offsets[i] + place] = (
                    [opinion.kind for opinion in opinions],
                    [opinion.probability(token) for opinion in opinions],
                    [opinion.pointed for opinion in opinions],
                )
                memory.push(token)
    kinds, ahead, pointed = ([x for one in found for x in one[part]] for part in range(3))
    ends = np.cumsum([len(one[0]) for one in found], dtype=int)
    return Evidence(ends, np.array(kinds, int), ahead, np.array(pointed, int))


def _walk(settled: Settled, first: int, last: int, gates: Gates) -> list[float]:
    """Probability of each target first .. last - 1; `gates` learns from each after it."""
    priced = []
    begin = settled.ends[first - 1] if first else 0
    for target in range(first, last):
        end = settled.ends[target]
        chosen = settled.gates[begin:end]
        p, shares = gates.chain(chosen, settled.ahead[begin:end], settled.model[target])
        gates.learn(chosen, shares)
        priced.append(p)
        begin = end
    return priced


class _Row:
    """Where one row of a reader stands: its memory, its gates, and what they say of the next."""

    def __init__(self, predictor: MixturePredictor) -> None:
        self.memory, self.gates = predictor.memory.branch(), predictor.gates.copy()
        self.targets_left = 0
        self.position = 0  # in the stream, of the next target
        self.opinions: list[Opinion] = []
        self.chosen: list[int] = []
        self.model = np.empty(0)  # (V,) the model's probabilities

    def look(self, log_probs: Tensor) -> np.ndarray:
        """The mixed distribution (V,), given the model's log_probs (V,)."""
        self.model = np.maximum(log_probs.exp().numpy(), TINY)
        self.opinions = self.memory.opinions()
        pointed = torch.tensor([opinion.pointed for opinion in self.opinions], dtype=torch.long)
        nats = -log_probs[pointed.clamp_min(0)].masked_fill(pointed < 0, 0.0)
        kinds = torch.tensor([opinion.kind for opinion in self.opinions], dtype=torch.long)
        self.chosen = (kinds * NUM_SURPRISES + surprise_class(nats)).tolist()
        mixed = np.zeros_like(self.model)
        weight = 1.0  # of what is not yet shared out, from the most specific opinion downwards
        for gate, opinion in zip(reversed(self.chosen), reversed(self.opinions), strict=True):
            share = self.gates[gate]
            opinion.add_to(mixed, weight * (1.0 - share))
            weight *= share
        return mixed + weight * self.model

    def push(self, token: int) -> None:
        if not self.targets_left:
            return  # the row idles until the others of its step have ended
        ahead = [opinion.probability(token) for opinion in self.opinions]
        _, shares = self.gates.chain(self.chosen, ahead, float(self.model[token]))
        self.gates.learn(self.chosen, shares)
        self.memory.push(token)
        self.targets_left -= 1
        self.position += 1


class MixtureReader:
    """The mixture one token at a time, for rows in step."""

    def __init__(self, predictor: MixturePredictor, plan: ChunkPlan) -> None:
        self.predictor, self.plan = predictor, plan
        self.base = predictor.base.reader(plan)
        self.rows: dict[int, _Row] = {}  # of the plan; they outlive the windows opened in them
        self.open: list[_Row] = []
        self.mixed: Tensor | None = None

    def start(self, windows: Sequence[int], histories: Tensor) -> None:
        self.base.start(windows, histories)
        self.open, self.mixed = [], None
        for i, history in zip(windows, histories.tolist(), strict=True):
            window, number = self.plan.windows[i], self.plan.rows[i]
            row = self.rows.setdefault(number, _Row(self.predictor))
            if row.targets_left == 1:  # nobody had to be told of a window's last token
                row.push(history[row.position - window.start])
            row.memory.stand_after(history)
            row.targets_left, row.position = window.num_targets, window.score_from
            self.open.append(row)

    def log_probs(self) -> Tensor:
        if self.mixed is None:
            model = self.base.log_probs()
            mixed = [row.look(log_probs) for row, log_probs in zip(self.open, model, strict=True)]
            self.mixed = torch.from_numpy(np.stack(mixed)).log()
        return self.mixed

    def push(self, tokens: Tensor) -> None:
        self.log_probs()  # what comes is learned from beside what was expected
        for row, token in zip(self.open, tokens.tolist(), strict=True):
            row.push(token)
        self.base.push(tokens)
        self.mixed = None
