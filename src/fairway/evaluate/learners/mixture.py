"""A model mixed with n-gram opinions from everything priced so far, over the whole vocabulary.

Any predictor around a model can be mixed, frozen or learning. What the opinions are is in
`ngram.py`, how they are joined and weighed in `gates.py`; here they meet the chunks.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fairway.evaluate.learners.gates import NUM_SURPRISES, Gates, Mixture, surprise_class
from fairway.evaluate.learners.ngram import Expert, Memory
from fairway.evaluate.predictor import Chunk, ChunkPlan, Frozen, Reader

TINY = 1e-300  # a model's probability that underflowed is still a probability


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


class ModelEvidence(NamedTuple):
    """A chunk's evidence beside what the model thinks: all that pricing and learning need."""

    chunk: Chunk
    ends: list[int]
    gates: list[int]
    ahead: list[float]
    model: list[float]  # probability the model gives each target


@dataclass
class RowState:
    """What one row has read since the last commit: nobody else sees it yet."""

    memory: Memory
    gates: Gates
    windows: list[tuple[Tensor, int]] = field(default_factory=list)  # text, how many priced


class MixturePredictor:
    """Any predictor around a model, with n-gram opinions.

    A row reads what was committed and what it has read itself. With documents side by side
    (`ChunkPlan.ends` is set) the commit comes when all that were begun have ended, in file order:
    no price then depends on text that comes later in the file. Otherwise it comes after each chunk.
    """

    def __init__(self, base: Frozen, config: Mixture) -> None:
        self.base, self.config = base, config
        self.memory = self._new_memory()
        self.gates = Gates(self.memory.orders_of_kinds(), config)
        self.committed: list[tuple[Tensor, int]] = []
        self.row_states: dict[int, RowState] = {}  # by row
        self.ended: set[int] = set()
        self._settled: ModelEvidence | None = None  # of the last chunk: a pure function of it, kept

    def _new_memory(self) -> Memory:
        return Memory(self.config.orders, self.config.fade, self.base.model.config.vocab_size)

    def row_state(self, row: int) -> RowState:
        """A copy of where the row stands, that may be read on with."""
        row_state = self.row_states.get(row)
        memory, gates = (
            (self.memory, self.gates) if row_state is None else (row_state.memory, row_state.gates)
        )
        return RowState(memory.branch(), gates.copy())

    @torch.inference_mode()
    def score(self, chunk: Chunk) -> Tensor:
        settled = self._settle(chunk)
        nats = torch.empty(chunk.num_targets, dtype=torch.float64)
        offsets = chunk.plan.offsets
        for row, members in rows_of(chunk.plan).items():
            gates = self.row_state(row).gates
            for i in members:
                p = _walk(settled, offsets[i], offsets[i + 1], gates)
                nats[offsets[i] : offsets[i + 1]] = -torch.tensor(p, dtype=torch.float64).log()
        return nats

    def learn(self, chunk: Chunk) -> None:
        plan, settled = chunk.plan, self._settle(chunk)
        offsets = plan.offsets
        for row, members in rows_of(plan).items():
            if row not in self.row_states:
                self.row_states[row] = self.row_state(row)
            row_state = self.row_states[row]
            for i in members:
                _walk(settled, offsets[i], offsets[i + 1], row_state.gates)
                # No context reaches back further than the longest one.
                num_targets = plan.windows[i].num_targets
                text = chunk.texts[i][-(num_targets + self.config.orders[-1]) :]
                row_state.windows.append((text, num_targets))
                if plan.ends:
                    read_window(row_state.memory, text, num_targets)
        self.ended |= {row for row, ends in zip(plan.rows, plan.ends, strict=False) if ends}
        # A chunk may hold no window: those of chunks shorter than a context that follow the first.
        if self.row_states and (not plan.ends or len(self.ended) == len(self.row_states)):
            self._commit()
        self._settled = None
        self.base.learn(chunk)

    def _commit(self) -> None:
        for row in sorted(self.row_states):
            for text, num_targets in self.row_states[row].windows:
                read_window(self.memory, text, num_targets)
                self.committed.append((text, num_targets))
        self.gates.merge([row_state.gates for row_state in self.row_states.values()])
        self.row_states, self.ended = {}, set()

    def reader(self, plan: ChunkPlan) -> Reader:
        return MixtureReader(self, plan)

    @torch.inference_mode()
    def _settle(self, chunk: Chunk) -> ModelEvidence:
        if self._settled is None or self._settled.chunk is not chunk:
            evidence = gather_evidence(chunk, lambda row: self.row_state(row).memory)
            self._settled = self._ask_model(chunk, evidence)
        return self._settled

    def _ask_model(self, chunk: Chunk, evidence: Evidence) -> ModelEvidence:
        """The model's price of every target and of every token that an opinion points at."""
        offsets, ends = chunk.plan.offsets, evidence.ends
        targets = torch.zeros(chunk.num_targets, dtype=torch.float64)
        pointed = torch.zeros(len(evidence.kinds), dtype=torch.float64)
        for one, logits in self.base.batches(chunk):
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
        return ModelEvidence(chunk, ends.tolist(), gates.tolist(), evidence.ahead, model.tolist())

    def state_dict(self) -> dict[str, Tensor]:
        state = {f"base/{name}": value for name, value in self.base.state_dict().items()}
        state |= _pack_windows("committed", self.committed) | {"gates": self.gates.state()}
        for row, row_state in self.row_states.items():
            state |= _pack_windows(f"trails/{row}", row_state.windows)
            state[f"trails/{row}/gates"] = row_state.gates.state()
        return state | {"ended": torch.tensor(sorted(self.ended), dtype=torch.long)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.memory, self.row_states, self._settled = self._new_memory(), {}, None
        self.committed = _unpack_windows("committed", state)
        for window in self.committed:
            read_window(self.memory, *window)
        self.gates.load_state(state["gates"])
        self.ended = set(state["ended"].tolist())
        rows = [name.split("/")[1] for name in state if name.endswith("/gates")]
        for row in rows:
            row_state = self.row_states[int(row)] = self.row_state(int(row))
            row_state.windows = _unpack_windows(f"trails/{row}", state)
            row_state.gates.load_state(state[f"trails/{row}/gates"])
            for window in row_state.windows:
                read_window(row_state.memory, *window)
        self.base.load_state_dict(
            {name.removeprefix("base/"): t for name, t in state.items() if name.startswith("base/")}
        )


def _pack_windows(name: str, windows: Sequence[tuple[Tensor, int]]) -> dict[str, Tensor]:
    shape = [(len(text), num_targets) for text, num_targets in windows]
    texts = [torch.empty(0, dtype=torch.long), *(text for text, _ in windows)]
    return {
        f"{name}/texts": torch.cat(texts),
        f"{name}/shape": torch.tensor(shape, dtype=torch.long).reshape(-1, 2),
    }


def _unpack_windows(name: str, state: Mapping[str, Tensor]) -> list[tuple[Tensor, int]]:
    lengths, num_targets = state[f"{name}/shape"].T.tolist()
    return list(zip(state[f"{name}/texts"].split(lengths), num_targets, strict=True))


def rows_of(plan: ChunkPlan) -> dict[int, list[int]]:
    """The windows of each row, in order."""
    rows: dict[int, list[int]] = {}
    for i, row in enumerate(plan.rows):
        rows.setdefault(row, []).append(i)
    return rows


def follow(memory: Memory, text: Sequence[int], num_targets: int) -> Iterator[tuple[int, int]]:
    """(place, token) of the targets of a window, `memory` standing before each of them.

    Contexts are those of the window's own text: it may be all that a reader of it has seen.
    """
    first = len(text) - num_targets
    memory.stand_after(text[:first])
    for place in range(num_targets):
        yield place, text[first + place]


def read_window(memory: Memory, text: Tensor, num_targets: int) -> None:
    """Push the targets of a window."""
    for _, token in follow(memory, text.tolist(), num_targets):
        memory.push(token)


def gather_evidence(chunk: Chunk, memory_of: Callable[[int], Memory]) -> Evidence:
    """What n-grams say about every target of a chunk.

    memory_of  for a row, a memory to read on with
    """
    plan, offsets = chunk.plan, chunk.plan.offsets
    found: list[tuple[list[int], list[float], list[int]]] = [([], [], [])] * plan.num_targets
    for row, members in rows_of(plan).items():
        memory = memory_of(row)
        for i in members:
            targets = plan.windows[i].num_targets
            for place, token in follow(memory, chunk.texts[i].tolist(), targets):
                experts = memory.experts()
                found[offsets[i] + place] = (
                    [expert.kind for expert in experts],
                    [expert.probability(token) for expert in experts],
                    [expert.pointed for expert in experts],
                )
                memory.push(token)
    kinds, ahead, pointed = ([x for one in found for x in one[part]] for part in range(3))
    ends = np.cumsum([len(one[0]) for one in found], dtype=int)
    return Evidence(ends, np.array(kinds, int), ahead, np.array(pointed, int))


def _walk(settled: ModelEvidence, first: int, last: int, gates: Gates) -> list[float]:
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

    def __init__(self, row_state: RowState) -> None:
        self.memory, self.gates = row_state.memory, row_state.gates
        self.targets_left = 0
        self.position = 0  # in the stream, of the next target
        self.experts: list[Expert] = []
        self.chosen: list[int] = []
        self.model = np.empty(0)  # (V,) the model's probabilities

    def look(self, log_probs: Tensor) -> np.ndarray:
        """The mixed distribution (V,), given the model's log_probs (V,)."""
        self.model = np.maximum(log_probs.exp().numpy(), TINY)
        self.experts = self.memory.experts()
        pointed = torch.tensor([expert.pointed for expert in self.experts], dtype=torch.long)
        nats = -log_probs[pointed.clamp_min(0)].masked_fill(pointed < 0, 0.0)
        kinds = torch.tensor([expert.kind for expert in self.experts], dtype=torch.long)
        self.chosen = (kinds * NUM_SURPRISES + surprise_class(nats)).tolist()
        mixed = np.zeros_like(self.model)
        weight = 1.0  # of what is not yet shared out, from the most specific opinion downwards
        for gate, expert in zip(reversed(self.chosen), reversed(self.experts), strict=True):
            share = self.gates[gate]
            expert.add_to(mixed, weight * (1.0 - share))
            weight *= share
        return mixed + weight * self.model

    def push(self, token: int) -> None:
        if not self.targets_left:
            return  # the row idles until the others of its step have ended
        ahead = [expert.probability(token) for expert in self.experts]
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
            if number not in self.rows:
                self.rows[number] = _Row(self.predictor.row_state(number))
            row = self.rows[number]
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
