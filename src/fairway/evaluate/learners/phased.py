"""Pauses in which the model itself learns from the documents finished so far (#1610, #1626, #1855),
and between them adapters per document.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import torch
from torch import Tensor

from fairway.evaluate.chunks import Chunk, ChunkPlan
from fairway.evaluate.frozen import Frozen
from fairway.evaluate.learner import Learner, Precision, Trial, WindowConfig
from fairway.evaluate.learners.documents import DocumentAdapters, DocumentPredictor
from fairway.evaluate.learners.sgd import Sgd, WeightLearner, chunk_rate
from fairway.evaluate.predictor import ALONE, Reader
from fairway.evaluate.window_batch import WindowBatch
from fairway.model.gpt import GPT
from fairway.runtime.distributed import Ranks
from fairway.runtime.tensor_file import under


@dataclass(frozen=True, kw_only=True)
class Phased(Learner):
    """Adapters per document, and now and then the model learns from all finished documents.

    sgd.chunk_tokens is how much text shares one learning rate of a phase's schedule.
    """

    # numbers of finished documents after which it pauses
    pauses: tuple[int, ...] = (833, 1666, 2500)
    adapters: DocumentAdapters | None = field(default_factory=DocumentAdapters)
    sgd: Sgd = field(default_factory=lambda: Sgd(lr=0.001, epochs=1))

    def __post_init__(self) -> None:
        if not self.pauses or self.pauses[0] < 1 or any(b <= a for a, b in pairwise(self.pauses)):
            raise ValueError(
                f"pauses={self.pauses} must be rising numbers of documents; without pauses, use "
                "DocumentAdapters alone"
            )

    def predictor(
        self, model: GPT, windows: WindowConfig, *, seed: int, ranks: Ranks
    ) -> "PhasedPredictor":
        return PhasedPredictor(
            model, self, context=windows.known_context, rows=windows.rows, seed=seed, ranks=ranks
        )

    def between_pauses(self) -> DocumentAdapters | None:
        return self.adapters

    def chunk_targets(self) -> None:
        return None

    def resolved(self, precision: Precision, compiled: bool) -> "Phased":
        return replace(self, sgd=self.sgd.resolved(precision, compiled))

    def lesson_tokens(self, plan: ChunkPlan) -> int:
        return plan.lasting_inputs if self.adapters is None else self.adapters.lesson_tokens(plan)

    def between_chunks(self, plans: Sequence[ChunkPlan]) -> tuple[Sgd, list[int]]:
        tokens = [self.sgd.epochs * targets for targets in targets_at_pauses(plans, self.pauses)]
        return self.sgd, tokens

    def smoke(self, context: int) -> "Phased":
        adapters = None if self.adapters is None else self.adapters.smoke(context)
        return replace(self, pauses=(1, 2), adapters=adapters, sgd=self.sgd.smoke(context))

    def suggest(self, trial: Trial, windows: WindowConfig) -> "Phased":
        adapters = None if self.adapters is None else self.adapters.suggest(trial, windows)
        return replace(self, adapters=adapters, sgd=self.sgd.suggest_steps(trial, 1, "phase_"))


def targets_at_pauses(plans: Sequence[ChunkPlan], pauses: Sequence[int]) -> Iterator[int]:
    """For each plan the targets of all finished documents if a pause comes after it, or else 0."""
    begun: set[int] = set()
    finished: set[int] = set()
    tokens, waiting = 0, list(pauses)
    for plan in plans[:-1]:
        begun.update(plan.rows)
        finished.update(row for row, ends in zip(plan.rows, plan.ends, strict=True) if ends)
        tokens += plan.num_targets
        due = bool(waiting) and waiting[0] <= len(finished) == len(begun)
        if due:
            waiting = [pause for pause in waiting if pause > len(finished)]
        yield tokens if due else 0
    if plans:
        yield 0


class PhasedPredictor(Frozen):
    """A predictor of single documents whose model learns at pauses, from finished documents only.

    A pause comes once its number of documents is finished and no other one is half read. Works on
    a copy of `model`.
    """

    def __init__(
        self,
        model: GPT,
        config: Phased,
        *,
        context: int,
        rows: int = 16,
        seed: int = 0,
        ranks: Ranks = ALONE,
    ) -> None:
        model = copy.deepcopy(model)
        super().__init__(model, rows, ranks)
        self.config, self.context = config, context
        self.local = (
            Frozen(model, rows, ranks)
            if config.adapters is None
            else DocumentPredictor(model, config.adapters, rows=rows, seed=seed, ranks=ranks)
        )
        self.learner = WeightLearner(model, config.sgd, context, ranks)
        self.texts: dict[int, Tensor] = {}  # by document, what was scored of it
        self.finished: set[int] = set()
        self.cut: set[int] = set()  # documents of which a chunk was skipped
        self.phases_done = 0

    def batches(self, chunk: Chunk) -> Iterator[tuple[WindowBatch, Tensor]]:
        return self.local.batches(chunk)

    def reader(self, plan: ChunkPlan) -> Reader:
        return self.local.reader(plan)

    def learn(self, chunk: Chunk) -> None:
        self.local.learn(chunk)
        plan = chunk.plan
        for document, text, ends in zip(plan.rows, chunk.span_texts, plan.ends, strict=True):
            before = self.texts.get(document)
            if document not in self.cut:
                self.texts[document] = text if before is None else torch.cat((before, text[1:]))
            if ends:
                self.finished.add(document)
        pauses = self.config.pauses[self.phases_done :]
        due = sum(pause <= len(self.finished) for pause in pauses)
        if due and len(self.finished) == len(self.texts) and not plan.is_last:
            self.phases_done += due
            self._run_phase()

    def skip(self, chunk: Chunk) -> None:
        """Of these documents what was read is all that will be learned from."""
        self.local.skip(chunk)
        for document, ends in zip(chunk.plan.rows, chunk.plan.ends, strict=True):
            self.texts.setdefault(document, torch.empty(0, dtype=torch.long))
            self.cut.add(document)
            if ends:
                self.finished.add(document)

    def _run_phase(self) -> None:
        # One rate more than parts, so that the last part is not learned at a rate of zero.
        parts = list(self._parts())
        for number, texts in enumerate(parts):
            rate = chunk_rate(self.config.sgd.schedule, number, len(parts) + 1)
            self.learner.learn(texts, rate)

    def _parts(self) -> Iterator[list[Tensor]]:
        """All finished text in file order, in runs of at least `chunk_tokens`."""
        part: list[Tensor] = []
        for document in sorted(d for d, text in self.texts.items() if len(text) > 1):
            part.append(self.texts[document])
            if sum(map(len, part)) >= self.config.sgd.chunk_tokens:
                yield self._joined(part)
                part = []
        if part:
            yield self._joined(part)

    def _joined(self, texts: list[Tensor]) -> list[Tensor]:
        """Documents that the model itself keeps apart can share sequences."""
        if not self.model.config.attention.within_documents:
            return texts
        return [torch.cat([*(text[:-1] for text in texts[:-1]), texts[-1]])]

    def state_dict(self) -> dict[str, Tensor]:
        documents = list(self.texts)
        state = {f"local/{name}": value for name, value in self.local.state_dict().items()}
        state |= {f"learner/{name}": value for name, value in self.learner.state_dict().items()}
        finished = [document in self.finished for document in documents]
        return state | {
            "documents": torch.tensor(documents, dtype=torch.long),
            "finished": torch.tensor(finished, dtype=torch.bool),
            "cut": torch.tensor(sorted(self.cut), dtype=torch.long),
            "lengths": torch.tensor([len(t) for t in self.texts.values()], dtype=torch.long),
            "texts": torch.cat([torch.empty(0, dtype=torch.long), *self.texts.values()]),
            "phases_done": torch.tensor(self.phases_done),
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.local.load_state_dict(under("local/", state))
        self.learner.load_state_dict(under("learner/", state))
        documents = state["documents"].tolist()
        texts = state["texts"].split(state["lengths"].tolist())
        self.texts = dict(zip(documents, texts, strict=True))
        self.finished = {d for d, f in zip(documents, state["finished"].tolist(), strict=True) if f}
        self.cut = set(state["cut"].tolist())
        self.phases_done = int(state["phases_done"])
