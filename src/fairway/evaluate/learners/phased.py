"""Pauses in which the model itself learns from the documents finished so far (#1610, #1626, #1855),
and between them adapters per document. How a pause's text is cut is in `pause_text.py`.
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
from fairway.evaluate.learners.pause_text import pause_pieces
from fairway.evaluate.learners.sgd import Sgd, WeightLearner, chunk_rate
from fairway.evaluate.ledger import Margins
from fairway.evaluate.predictor import ALONE, Reader, Rounding
from fairway.evaluate.window_batch import WindowBatch
from fairway.model.gpt import GPT
from fairway.runtime.distributed import Ranks
from fairway.runtime.tensor_file import under


@dataclass(frozen=True, kw_only=True)
class Phased(Learner):
    """Adapters per document, and now and then the model learns from finished documents.

    sgd.chunk_tokens is how much text shares one learning rate of a pause's schedule.
    """

    # numbers of finished documents after which it pauses, to learn from so many, the shortest first
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

    def margins(self) -> Margins:
        """The wider ones of both."""
        of = [part.margins() for part in (self.sgd, self.adapters) if part is not None]
        gradient = max(one.gradient or 0.0 for one in of)
        return Margins(state=max(one.state for one in of), gradient=gradient or None)

    def check(self, windows: WindowConfig) -> None:
        super().check(windows)
        if windows.context is not None and self.sgd.chunk_tokens < windows.context:
            raise ValueError(
                f"ttt.sgd.chunk_tokens={self.sgd.chunk_tokens} of a context of {windows.context}: "
                "a pause learns from whole contexts, so it would learn nothing; set it to at "
                f"least {windows.context}"
            )

    def resolved(self, precision: Precision, compiled: bool) -> "Phased":
        return replace(self, sgd=self.sgd.resolved(precision, compiled))

    def lesson_tokens(self, plan: ChunkPlan) -> int:
        return plan.lasting_inputs if self.adapters is None else self.adapters.lesson_tokens(plan)

    def between_chunks(self, plans: Sequence[ChunkPlan]) -> tuple[Sgd, list[int]]:
        at_pauses = targets_at_pauses(plans, self.pauses, self.sgd.chunk_tokens)
        return replace(self.sgd, compiled=False), [self.sgd.epochs * n for n in at_pauses]

    def smoke(self, context: int) -> "Phased":
        adapters = None if self.adapters is None else self.adapters.smoke(context)
        # The last piece of a pause's text teaches nothing, so a short text needs short pieces.
        sgd = replace(self.sgd.smoke(context), chunk_tokens=context)
        return replace(self, pauses=(1, 2), adapters=adapters, sgd=sgd)

    def suggest(self, trial: Trial, windows: WindowConfig) -> "Phased":
        adapters = None if self.adapters is None else self.adapters.suggest(trial, windows)
        return replace(self, adapters=adapters, sgd=self.sgd.suggest_steps(trial, 1, "phase_"))


def targets_at_pauses(
    plans: Sequence[ChunkPlan], pauses: Sequence[int], chunk_tokens: int
) -> Iterator[int]:
    """For each plan the targets that a pause after it learns from, or 0 where none comes."""
    lengths: dict[int, int] = {}  # of each document, as far as it was scored
    finished: set[int] = set()
    waiting = list(pauses)
    for plan in plans[:-1]:
        for row, window, ends in zip(plan.rows, plan.windows, plan.ends, strict=True):
            lengths[row] = lengths.get(row, 1) + window.num_targets
            finished |= {row} if ends else set()
        if waiting and waiting[0] <= len(finished) == len(lengths):
            joined = sum(sorted(lengths.values())[: waiting.pop(0)])
            yield max(joined - 2, 0) // chunk_tokens * chunk_tokens
        else:
            yield 0
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
        # A pause's segments have shapes of their own, not worth compiling for.
        settings = replace(config.sgd, compiled=False)
        self.learner = WeightLearner(model, settings, context, ranks)
        self.texts: dict[int, Tensor] = {}  # by document, what was scored of it
        self.finished: set[int] = set()
        self.cut: set[int] = set()  # documents of which a chunk was skipped
        self.phases_done = 0

    def batches(self, chunk: Chunk) -> Iterator[tuple[WindowBatch, Tensor]]:
        return self.local.batches(chunk)

    def round_gradients(self, rounding: Rounding) -> None:
        self.learner.rounding = rounding
        if isinstance(self.local, DocumentPredictor):
            self.local.round_gradients(rounding)

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
        due = bool(pauses) and pauses[0] <= len(self.finished) == len(self.texts)
        if due and not plan.is_last:
            self.phases_done += 1
            self._run_phase(most=pauses[0])

    def skip(self, chunk: Chunk) -> None:
        """Of these documents what was read is all that will be learned from."""
        self.local.skip(chunk)
        for document, ends in zip(chunk.plan.rows, chunk.plan.ends, strict=True):
            self.texts.setdefault(document, torch.empty(0, dtype=torch.long))
            self.cut.add(document)
            if ends:
                self.finished.add(document)

    def _run_phase(self, most: int) -> None:
        """One pass of a new optimizer over the shortest `most` finished documents."""
        by_length = sorted(
            self.finished, key=lambda document: (len(self.texts[document]), document)
        )
        texts = [self.texts[document] for document in by_length[:most]]
        pieces = pause_pieces(texts, self.config.sgd.chunk_tokens)
        self.learner.restart()
        for number, piece in enumerate(pieces[:-1]):
            rate = chunk_rate(self.config.sgd.schedule, number, len(pieces))
            self.learner.learn_packed(piece, rate)
        if isinstance(self.local, DocumentPredictor):
            self.local.renew()

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
