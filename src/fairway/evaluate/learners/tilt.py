"""A model tilted towards hints: what most often followed the last tokens before (#2130, #2135).

    p'(v) = p(v) * exp(boost * [v = hint]) / (1 + p(hint) * (exp(boost) - 1))

which is the softmax of the logits with `boost` added to the hint's: a distribution over the whole
vocabulary. Hints come from text that was scored, in the order of scoring; the published evaluator
takes them in the order of the stream while it scores documents in another (`StreamTilt`), which no
decoder can follow. How hints are found is in `hints.py`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from torch import Tensor

from fairway.evaluate.chunks import Chunk, ChunkPlan
from fairway.evaluate.frozen import chunk_nats
from fairway.evaluate.learner import Trial
from fairway.evaluate.learners.evidence import rows_of
from fairway.evaluate.learners.hints import LONGEST, NONE, HintMemory, trusted
from fairway.evaluate.learners.hints_compiled import new_hint_memory
from fairway.evaluate.predictor import ModelPredictor, Reader
from fairway.evaluate.window_batch import WindowBatch
from fairway.runtime.tensor_file import under


@dataclass(frozen=True, kw_only=True)
class Tilt:
    """Which hints are trusted, and what they are worth; the defaults are those of #2135."""

    order: int = 16  # tokens of a context and the one that follows it, together
    threshold: float = 0.8  # share of a context's occurrences that the hint must have followed
    boost: float = 2.625  # nats added to the hint's logit

    def __post_init__(self) -> None:
        if not 2 <= self.order <= LONGEST + 1:
            raise ValueError(f"order={self.order}; it must be 2 to {LONGEST + 1}")
        if not 0 < self.threshold <= 1 or self.boost <= 0:
            raise ValueError(
                f"threshold={self.threshold}, boost={self.boost}: needs 0 < threshold <= 1 and "
                "boost > 0; for no hints at all, set tilt=None"
            )

    def wrap(self, base: ModelPredictor) -> "TiltPredictor":
        return TiltPredictor(base, self)

    def suggest(self, trial: Trial) -> "Tilt":
        return replace(
            self,
            order=trial.suggest_int("tilt_order", 4, LONGEST + 1),
            threshold=trial.suggest_float("tilt_threshold", 0.5, 1.0),
            boost=trial.suggest_float("tilt_boost", 0.5, 5.0),
        )

    def new_memory(self) -> HintMemory:
        return new_hint_memory(self.order - 1)

    def hints(self, tokens: Tensor) -> Tensor:
        """The hint (n - 1,) for each of tokens[1:] in the order of the stream; -1 for none."""
        return trusted(self.new_memory().read(tokens[1:]), self.threshold)


def tilt_logits(logits: Tensor, hints: Tensor, boost: float) -> Tensor:
    """Logits (..., V), in place, with `boost` added to that of each hint (...); -1 is none."""
    some = (hints != NONE).to(logits.dtype) * boost
    return logits.scatter_add_(-1, hints.clamp_min(0)[..., None], some[..., None])


class HintedModel:
    """A predictor around a model whose logits are tilted. A subclass knows the hints."""

    def __init__(self, base: ModelPredictor, config: Tilt) -> None:
        self.base, self.config = base, config
        self.model, self.ranks = base.model, base.ranks

    def hints_of(self, chunk: Chunk) -> Tensor:
        """(num_targets,) int64: the hint for each target of a chunk, -1 for none."""
        raise NotImplementedError

    def batches(self, chunk: Chunk) -> Iterator[tuple[WindowBatch, Tensor]]:
        hints, offsets = self.hints_of(chunk), chunk.plan.offsets
        for one, logits in self.base.batches(chunk):
            padded = torch.full(logits.shape[:2], NONE)
            for row, i, length in zip(padded, one.members, one.num_targets, strict=True):
                row[:length] = hints[offsets[i] : offsets[i] + length]
            yield one, tilt_logits(logits, padded.to(logits.device), self.config.boost)

    @torch.inference_mode()
    def score(self, chunk: Chunk) -> Tensor:
        return chunk_nats(chunk.plan, self.batches(chunk), self.ranks)

    def learn(self, chunk: Chunk) -> None:
        self.base.learn(chunk)

    def skip(self, chunk: Chunk) -> None:
        self.base.skip(chunk)


@dataclass
class RowHints:
    """What one row has read since the last commit: nobody else sees it yet.

    runs  (place, texts): where the row stood, and what it read from there on
    """

    memory: HintMemory
    runs: list[tuple[list[int], list[Tensor]]] = field(default_factory=list)

    def begin(self, place: Sequence[int]) -> None:
        """Read on from another place."""
        self.memory.stand_after(place)
        self.runs.append((list(place), []))


class Hinted(NamedTuple):
    """A chunk's hints, and for each row the memory that has read its targets, and those."""

    chunk: Chunk
    hints: Tensor
    rows: dict[int, tuple[HintMemory, list[Tensor]]]


class TiltPredictor(HintedModel):
    """Any predictor around a model, with hints from what was scored so far.

    Within a chunk a row reads on token by token. With documents side by side (`ChunkPlan.ends` is
    set) a row begins without context and knows what was committed and what it has read itself; the
    commit comes when all that were begun have ended, in file order: no score of a document then
    depends on one beside it. Otherwise it comes after each chunk, and rows go on where they were.
    """

    def __init__(self, base: ModelPredictor, config: Tilt) -> None:
        super().__init__(base, config)
        self.memory = config.new_memory()
        self.committed: list[tuple[list[int], Tensor]] = []  # place, and what was read from there
        self.places: dict[int, list[int]] = {}  # where rows stand that go on after a commit
        self.rows: dict[int, RowHints] = {}
        self.ended: set[int] = set()
        self._hinted: Hinted | None = None  # of the last chunk: a pure function of it, kept

    def row_memory(self, row: int) -> HintMemory:
        """A memory that reads on where the row stands, and leaves no trace."""
        known = self.rows.get(row)
        if known is not None:
            return known.memory.branch()
        memory = self.memory.branch()
        memory.stand_after(self.places.get(row, ()))
        return memory

    def hints_of(self, chunk: Chunk) -> Tensor:
        return self._hint(chunk).hints

    def _hint(self, chunk: Chunk) -> Hinted:
        if self._hinted is not None and self._hinted.chunk is chunk:
            return self._hinted
        plan, offsets = chunk.plan, chunk.plan.offsets
        hints, rows = torch.empty(plan.num_targets, dtype=torch.long), {}
        for row, members in rows_of(plan).items():
            memory, texts = self.row_memory(row), []
            for i in members:
                text = chunk.texts[i][-plan.windows[i].num_targets :]
                read = trusted(memory.read(text), self.config.threshold)
                hints[offsets[i] : offsets[i + 1]] = read
                texts.append(text)
            rows[row] = memory, texts
        self._hinted = Hinted(chunk, hints, rows)
        return self._hinted

    def learn(self, chunk: Chunk) -> None:
        for row, (memory, texts) in self._hint(chunk).rows.items():
            known = self._opened(row)
            known.memory.absorb(memory)
            known.runs[-1][1].extend(texts)
        self._close(chunk.plan)
        super().learn(chunk)

    def skip(self, chunk: Chunk) -> None:
        """What is not learned from is a gap, after which contexts begin anew."""
        for row in chunk.plan.rows:
            if chunk.plan.ends:
                self._opened(row).begin(())
            else:
                self.places.pop(row, None)
        self._close(chunk.plan)
        super().skip(chunk)

    def _opened(self, row: int) -> RowHints:
        if row not in self.rows:
            known = self.rows[row] = RowHints(self.memory.branch())
            known.begin(self.places.get(row, ()))
        return self.rows[row]

    def _close(self, plan: ChunkPlan) -> None:
        """Hand what ended rows read to all, once none of those side by side goes on."""
        self.ended |= {row for row, ends in zip(plan.rows, plan.ends, strict=False) if ends}
        if self.rows and (not plan.ends or len(self.ended) == len(self.rows)):
            self._commit(go_on=not plan.ends)
        self._hinted = None

    def _commit(self, *, go_on: bool) -> None:
        rows = [self.rows[row] for row in sorted(self.rows)]
        runs = [(place, torch.cat(texts)) for one in rows for place, texts in one.runs if texts]
        if len(rows) == 1:  # what it knows is what reading the same again would teach
            self.memory.absorb(rows[0].memory)
        else:
            _read_runs(self.memory, runs)
        self.committed += [(place, text.to(torch.int32)) for place, text in runs]
        if go_on:
            self.places |= {row: known.memory.place() for row, known in self.rows.items()}
        self.rows, self.ended = {}, set()

    def reader(self, plan: ChunkPlan) -> Reader:
        return TiltReader(self, plan)

    def state_dict(self) -> dict[str, Tensor]:
        state = {f"base/{name}": value for name, value in self.base.state_dict().items()}
        state |= _pack_runs("committed", self.committed)
        for row, known in self.rows.items():
            runs = [(place, _joined(texts)) for place, texts in known.runs]
            state |= _pack_runs(f"rows/{row}", runs)
        for row, place in self.places.items():
            state[f"places/{row}"] = torch.tensor(place, dtype=torch.long)
        return state | {"ended": torch.tensor(sorted(self.ended), dtype=torch.long)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.memory, self.rows, self._hinted = self.config.new_memory(), {}, None
        self.committed = _unpack_runs("committed", state)
        _read_runs(self.memory, self.committed)
        self.ended = set(state["ended"].tolist())
        self.places = {
            int(row): place.tolist() for row, place in under("places/", dict(state)).items()
        }
        for row in {int(name.split("/")[1]) for name in state if name.startswith("rows/")}:
            known = self.rows[row] = RowHints(self.memory.branch())
            for place, text in _unpack_runs(f"rows/{row}", state):
                known.begin(place)
                known.runs[-1][1].append(text.long())
                known.memory.read(text)
        self.base.load_state_dict(under("base/", state))


def _read_runs(memory: HintMemory, runs: Sequence[tuple[list[int], Tensor]]) -> None:
    for place, text in runs:
        memory.stand_after(place)
        memory.read(text)


def _joined(texts: Sequence[Tensor]) -> Tensor:
    return torch.cat([torch.empty(0, dtype=torch.int32), *(text.int() for text in texts)])


def _pack_runs(name: str, runs: Sequence[tuple[list[int], Tensor]]) -> dict[str, Tensor]:
    places = [token for place, _ in runs for token in place]
    lengths = [(len(place), len(text)) for place, text in runs]
    return {
        f"{name}/places": torch.tensor(places, dtype=torch.long),
        f"{name}/texts": _joined([text for _, text in runs]),
        f"{name}/lengths": torch.tensor(lengths, dtype=torch.long).reshape(-1, 2),
    }


def _unpack_runs(name: str, state: Mapping[str, Tensor]) -> list[tuple[list[int], Tensor]]:
    of_places, of_texts = state[f"{name}/lengths"].T.tolist()
    places = state[f"{name}/places"].split(of_places)
    texts = state[f"{name}/texts"].split(of_texts)
    return [(place.tolist(), text) for place, text in zip(places, texts, strict=True)]


@dataclass
class _Row:
    """Where one row of a reader stands."""

    memory: HintMemory
    targets_left: int = 0
    position: int = 0  # in the stream, of the next target

    def push(self, token: int) -> None:
        if self.targets_left:  # or it idles until the others of its step have ended
            self.memory.push(token)
            self.targets_left -= 1
            self.position += 1


class TiltReader:
    """The tilted model one token at a time, for rows in step."""

    def __init__(self, predictor: TiltPredictor, plan: ChunkPlan) -> None:
        self.predictor, self.plan = predictor, plan
        self.base = predictor.base.reader(plan)
        self.rows: dict[int, _Row] = {}  # of the plan; they outlive the windows opened in them
        self.open: list[_Row] = []

    def start(self, windows: Sequence[int], histories: Tensor) -> None:
        self.base.start(windows, histories)
        self.open = []
        for i, history in zip(windows, histories, strict=True):
            window, number = self.plan.windows[i], self.plan.rows[i]
            if number not in self.rows:
                self.rows[number] = _Row(self.predictor.row_memory(number))
            row = self.rows[number]
            if row.targets_left == 1:  # nobody had to push a window's last token
                row.push(int(history[row.position - window.start]))
            row.targets_left, row.position = window.num_targets, window.score_from
            self.open.append(row)

    def log_probs(self) -> Tensor:
        return torch.log_softmax(self._tilted(self.base.log_probs()), dim=-1)

    @property
    def logits(self) -> Tensor | None:
        """(rows, V) what the distributions come from, where the model's reader keeps that."""
        logits: Tensor | None = self.base.logits  # type: ignore[attr-defined]
        return None if logits is None else self._tilted(logits)

    def _tilted(self, logits: Tensor) -> Tensor:
        config = self.predictor.config
        expected = [row.memory.expected() for row in self.open]
        hints = [token if sure >= config.threshold else NONE for token, sure in expected]
        return tilt_logits(logits.clone(), torch.tensor(hints), config.boost)

    def push(self, tokens: Tensor) -> None:
        for row, token in zip(self.open, tokens.tolist(), strict=True):
            row.push(token)
        self.base.push(tokens)


class StreamTilt(HintedModel):
    """Hints as #2135 makes them: all of them before anything is scored, in the order of the stream.

    Where text is scored in another order, hints tell of text that is not scored yet, so what comes
    out is no score. It is what a diagnostic computes, and it has no reader: nothing decodes it.

    tokens  (n,) of the whole text
    """

    def __init__(self, base: ModelPredictor, config: Tilt, tokens: Tensor) -> None:
        super().__init__(base, config)
        self.hints = config.hints(tokens)

    def hints_of(self, chunk: Chunk) -> Tensor:
        parts = [self.hints[w.score_from - 1 : w.stop - 1] for w in chunk.plan.windows]
        return torch.cat([torch.empty(0, dtype=torch.long), *parts])

    def reader(self, plan: ChunkPlan) -> Reader:
        raise ValueError(
            "hints in the order of the stream tell of text that is not decoded yet: there is "
            "nothing to prove; EvaluateConfig.tilt takes them in the order of scoring"
        )

    def state_dict(self) -> dict[str, Tensor]:
        return self.base.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.base.load_state_dict(state)
