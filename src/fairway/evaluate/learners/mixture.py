"""A model mixed with n-gram experts on everything scored so far, over the whole vocabulary.

Any predictor around a model can be mixed, frozen or learning. What the experts know is in
`ngram.py` and `evidence.py`, how they are joined and weighed in `gates.py`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fairway.evaluate.chunks import Chunk, ChunkPlan
from fairway.evaluate.learner import Trial
from fairway.evaluate.learners.evidence import gather_evidence, rows_of
from fairway.evaluate.learners.gates import NUM_SURPRISES, Gates, surprise_class
from fairway.evaluate.learners.ngram import NgramMemory, Says
from fairway.evaluate.learners.ngram_compiled import new_memory
from fairway.evaluate.predictor import ModelPredictor, Reader
from fairway.runtime.tensor_file import under

TINY = 1e-300  # a model's probability that underflowed is still a probability


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """Which contexts vote, and how fast votes are reweighed."""

    orders: tuple[int, ...] = (0, 1, 2, 3, 4, 6, 10, 16)  # lengths of the contexts, in tokens
    fade: float = 300.0  # tokens over which recent successors of the shortest contexts fade
    # share of what a gate has learned that is left after each target
    memory: float = 0.99
    open: float = 0.8  # what a long context's gate leaves to the model before it has learned

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

    def wrap(self, base: ModelPredictor) -> "MixturePredictor":
        return MixturePredictor(base, self)

    def suggest(self, trial: Trial) -> "Mixture":
        return replace(
            self,
            fade=trial.suggest_float("fade", 50.0, 2000.0, log=True),
            memory=trial.suggest_float("memory", 0.9, 0.999),
            open=trial.suggest_float("open", 0.5, 0.95),
        )


@dataclass
class RowState:
    """What one row has read since the last commit: nobody else sees it yet."""

    memory: NgramMemory
    gates: Gates
    windows: list[tuple[Tensor, int]] = field(default_factory=list)  # text, number of targets


class Scored(NamedTuple):
    """A chunk's nats, and the rows as they stand once they have learned from it."""

    chunk: Chunk
    nats: Tensor
    rows: dict[int, RowState]


class MixturePredictor:
    """Any predictor around a model, with n-gram experts.

    A row reads what was committed and what it has read itself. With documents side by side
    (`ChunkPlan.ends` is set) the commit comes when all that were begun have ended, in file order:
    no score then depends on text that comes later in the file. Otherwise it comes after each chunk.
    """

    def __init__(self, base: ModelPredictor, config: Mixture) -> None:
        self.base, self.config = base, config
        self.memory = self._new_memory()
        self.gates = Gates(self.memory.orders_of_kinds(), memory=config.memory, open=config.open)
        self.committed: list[tuple[Tensor, int]] = []
        self.row_states: dict[int, RowState] = {}  # by row
        self.ended: set[int] = set()
        self._scored: Scored | None = None  # the last chunk: a pure function of it, kept

    def _new_memory(self) -> NgramMemory:
        return new_memory(self.config.orders, self.config.fade, self.base.model.config.vocab_size)

    def row_state(self, row: int) -> RowState:
        """A copy of where the row stands, that may be read on with."""
        row_state = self.row_states.get(row)
        memory, gates = (
            (self.memory, self.gates) if row_state is None else (row_state.memory, row_state.gates)
        )
        return RowState(memory.branch(), gates.copy())

    def score(self, chunk: Chunk) -> Tensor:
        return self._score(chunk).nats.clone()

    def learn(self, chunk: Chunk) -> None:
        plan = chunk.plan
        for row, learned in self._score(chunk).rows.items():
            known = self.row_states.setdefault(row, learned)
            if known is not learned:
                known.memory.absorb(learned.memory)
                known.gates = learned.gates
            for i in rows_of(plan)[row]:
                # No context reaches back further than the longest one.
                num_targets = plan.windows[i].num_targets
                text = chunk.texts[i][-(num_targets + self.config.orders[-1]) :]
                known.windows.append((text, num_targets))
        self._close(plan)
        self.base.learn(chunk)

    def skip(self, chunk: Chunk) -> None:
        for row in chunk.plan.rows if chunk.plan.ends else ():
            # Begun all the same: nothing is handed to all while a row goes on that may lie before.
            self.row_states.setdefault(row, self.row_state(row))
        self._close(chunk.plan)
        self.base.skip(chunk)

    def _close(self, plan: ChunkPlan) -> None:
        """Hand what ended rows read to all, once none of those side by side goes on."""
        self.ended |= {row for row, ends in zip(plan.rows, plan.ends, strict=False) if ends}
        # A chunk may hold no window: those of chunks shorter than a context that follow the first.
        if self.row_states and (not plan.ends or len(self.ended) == len(self.row_states)):
            self._commit()
        self._scored = None

    def _commit(self) -> None:
        rows = [self.row_states[row] for row in sorted(self.row_states)]
        windows = [window for row_state in rows for window in row_state.windows]
        if len(rows) == 1:  # what it knows is what reading its windows again would teach
            self.memory.absorb(rows[0].memory)
        else:
            for window in windows:
                self.memory.read(*window)
        self.committed += windows
        self.gates.merge([row_state.gates for row_state in self.row_states.values()])
        self.row_states, self.ended = {}, set()

    def reader(self, plan: ChunkPlan) -> Reader:
        return MixtureReader(self, plan)

    @torch.inference_mode()
    def _score(self, chunk: Chunk) -> Scored:
        if self._scored is not None and self._scored.chunk is chunk:
            return self._scored
        members_of, offsets = rows_of(chunk.plan), chunk.plan.offsets
        rows = {row: self.row_state(row) for row in members_of}
        says = gather_evidence(chunk, lambda row: rows[row].memory)
        ends = np.concatenate(([0], np.cumsum(says.numbers, dtype=np.int64)))
        gates, model = self._ask_model(chunk, says, ends)
        mixed = np.empty(chunk.num_targets, np.float64)
        for row, members in members_of.items():
            for i in members:
                targets = slice(offsets[i], offsets[i + 1])
                experts = slice(ends[offsets[i]], ends[offsets[i + 1]])
                part = Says(says.numbers[targets], *(one[experts] for one in says[1:]))
                mixed[targets] = rows[row].gates.mix(part, gates[experts], model[targets])
        self._scored = Scored(chunk, -torch.from_numpy(mixed).log(), rows)
        return self._scored

    def _ask_model(
        self, chunk: Chunk, says: Says, ends: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Each expert's gate, and the probability that the model gives each target.

        ends  (num_targets + 1,) where each target's experts begin among those of `says`
        """
        offsets = chunk.plan.offsets
        targets = torch.zeros(chunk.num_targets, dtype=torch.float64)
        pointed = torch.zeros(len(says.kinds), dtype=torch.float64)
        for one, logits in self.base.batches(chunk):
            log_probs = torch.log_softmax(logits.double(), dim=-1)
            for row, i, length in zip(log_probs, one.members, one.num_targets, strict=True):
                first, last = offsets[i], offsets[i + 1]
                came = chunk.texts[i][-length:].to(row.device)
                targets[first:last] = row[:length].gather(1, came[:, None])[:, 0].cpu()
                experts = slice(ends[first], ends[last])
                places = np.repeat(np.arange(length), says.numbers[first:last])
                tokens = np.maximum(says.pointed[experts], 0)
                chosen = row[torch.from_numpy(places), torch.from_numpy(tokens)]
                pointed[experts] = chosen.cpu()
        targets = self.base.ranks.sum(targets)
        pointed = self.base.ranks.sum(pointed)
        gates = chosen_gates(says.kinds, says.pointed, pointed)
        return gates, targets.exp().clamp_min(TINY).numpy()

    def state_dict(self) -> dict[str, Tensor]:
        state = {f"base/{name}": value for name, value in self.base.state_dict().items()}
        state |= _pack_windows("committed", self.committed) | {"gates": self.gates.state()}
        for row, row_state in self.row_states.items():
            state |= _pack_windows(f"trails/{row}", row_state.windows)
            state[f"trails/{row}/gates"] = row_state.gates.state()
        return state | {"ended": torch.tensor(sorted(self.ended), dtype=torch.long)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.memory, self.row_states, self._scored = self._new_memory(), {}, None
        self.committed = _unpack_windows("committed", state)
        for window in self.committed:
            self.memory.read(*window)
        self.gates.load_state(state["gates"])
        self.ended = set(state["ended"].tolist())
        rows = [name.split("/")[1] for name in state if name.endswith("/gates")]
        for row in rows:
            row_state = self.row_states[int(row)] = self.row_state(int(row))
            row_state.windows = _unpack_windows(f"trails/{row}", state)
            row_state.gates.load_state(state[f"trails/{row}/gates"])
            for window in row_state.windows:
                row_state.memory.read(*window)
        self.base.load_state_dict(under("base/", state))


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


def chosen_gates(kinds: np.ndarray, pointed: np.ndarray, log_probs: Tensor) -> np.ndarray:
    """The gate of each expert (n,): its kind's, by how likely the model held what it points at.

    log_probs  (n,) the model's, of the token `pointed` at; any value where that is -1
    """
    # Where an expert points at no one token, nothing but the text before may choose the gate.
    nats = -log_probs.masked_fill(torch.from_numpy(pointed) < 0, 0.0)
    return kinds * NUM_SURPRISES + surprise_class(nats).numpy()


class MixtureRow:
    """Where one row of a reader stands: its memory, its gates, and what they say of the next."""

    def __init__(self, state: RowState) -> None:
        self.state, self.memory, self.gates = state, state.memory, state.gates
        self.targets_left = 0
        self.position = 0  # in the stream, of the next target
        self.chosen = np.empty(0, np.int64)
        self.model = np.empty(0)  # (V,) the model's probabilities

    def look(self, given: Tensor) -> np.ndarray:
        """The mixed distribution (V,), given the model's log-probabilities (V,)."""
        self.model = np.maximum(given.exp().numpy(), TINY)
        kinds, pointed = self.memory.suggestions()
        of_pointed = given[torch.from_numpy(np.maximum(pointed, 0))]
        self.chosen = chosen_gates(kinds, pointed, of_pointed)
        return self.memory.join(self.gates.kept(self.chosen), self.model)

    def push(self, token: int) -> None:
        if not self.targets_left:
            return  # the row idles until the others of its step have ended
        self.learn(token)
        self.targets_left -= 1
        self.position += 1

    def learn(self, token: int) -> None:
        """What came, after `look`."""
        ahead = self.memory.ahead(token)
        _, shares = self.gates.chain(self.chosen.tolist(), ahead.tolist(), float(self.model[token]))
        self.gates.learn(self.chosen.tolist(), shares)
        self.memory.push(token)


class MixtureReader:
    """The mixture one token at a time, for rows in step."""

    new_row: Callable[[RowState], MixtureRow] = MixtureRow

    def __init__(self, predictor: MixturePredictor, plan: ChunkPlan) -> None:
        self.predictor, self.plan = predictor, plan
        self.base = predictor.base.reader(plan)
        self.rows: dict[
            int, MixtureRow
        ] = {}  # of the plan; they outlive the windows opened in them
        self.open: list[MixtureRow] = []
        self.mixed: Tensor | None = None

    def start(self, windows: Sequence[int], histories: Tensor) -> None:
        self.base.start(windows, histories)
        self.open, self.mixed = [], None
        for i, history in zip(windows, histories.tolist(), strict=True):
            window, number = self.plan.windows[i], self.plan.rows[i]
            if number not in self.rows:
                self.rows[number] = self.new_row(self.predictor.row_state(number))
            row = self.rows[number]
            if row.targets_left == 1:  # nobody had to push a window's last token
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
        self._push(tokens)

    def _push(self, tokens: Tensor) -> None:
        for row, token in zip(self.open, tokens.tolist(), strict=True):
            row.push(token)
        self.base.push(tokens)
        self.mixed = None
