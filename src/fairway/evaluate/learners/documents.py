"""Low-rank adapters that learn within a document and are reset for the next (#77, #1530), and
pauses in which the model itself learns from the documents finished so far (#1610, #1626, #1855).

Documents stay in file order: sorting them by length, as the published evaluators do, lets what is
learned depend on text still to come. What an adapter is, is in `model/adapters.py`.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fairway.evaluate.learners.sgd import Sgd, WeightLearner, chunk_rate
from fairway.evaluate.predictor import (
    ALONE,
    Chunk,
    ChunkPlan,
    Frozen,
    ModelReader,
    Reader,
    WindowBatch,
    group_windows,
    make_window_batch,
)
from fairway.model.adapters import AdapterConfig, Adapters
from fairway.model.gpt import GPT
from fairway.runtime.distributed import Ranks


@dataclass(frozen=True, kw_only=True)
class DocumentAdapters:
    """One set of adapters per document; a step after each stride of it. Defaults as in #1855."""

    adapters: AdapterConfig = field(
        default_factory=lambda: AdapterConfig(
            rank=80, alpha=144.0, targets=("query", "key", "value", "output", "mlp", "head")
        )
    )
    lr: float = 1e-4
    betas: tuple[float, float] = (0.0, 0.99)
    eps: float = 1e-10
    weight_decay: float = 0.5
    steps: int = 1  # per stride
    warm: bool = True  # A goes on from one document to the next of its row, B starts at zero

    def __post_init__(self) -> None:
        if self.steps < 1 or self.lr < 0 or self.weight_decay < 0:
            raise ValueError(
                f"steps={self.steps}, lr={self.lr}, weight_decay={self.weight_decay}: needs at "
                "least one step and no negative number; to learn nothing, set ttt=None"
            )
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas={self.betas}: both must lie in [0, 1)")


@dataclass(frozen=True, kw_only=True)
class Phased:
    """Adapters per document, and now and then the model learns from all finished documents.

    sgd.chunk_tokens is how much text shares one learning rate of a phase's schedule.
    """

    pauses: tuple[int, ...] = (833, 1666, 2500)  # numbers of finished documents
    adapters: DocumentAdapters | None = field(default_factory=DocumentAdapters)
    sgd: Sgd = field(default_factory=lambda: Sgd(lr=0.001, epochs=1))

    def __post_init__(self) -> None:
        if not self.pauses or self.pauses[0] < 1 or any(b <= a for a, b in pairwise(self.pauses)):
            raise ValueError(
                f"pauses={self.pauses} must be rising numbers of documents; without pauses, use "
                "DocumentAdapters alone"
            )


class _RowAdapters(Adapters):
    """Some rows of a bank of adapters, as leaves that gradients can be taken of."""

    def __init__(self, bank: Adapters, rows: Sequence[int], closed: Sequence[bool]) -> None:
        nn.Module.__init__(self)
        self.scale = bank.scale
        chosen = _select(rows)
        self.down = _leaves(bank.down, chosen)
        self.up = _leaves(bank.up, chosen)
        if any(closed):  # their document is new: what the bank holds was another's
            keep = torch.tensor([not c for c in closed], device=next(iter(bank.up.values())).device)
            for key, up in self.up.items():
                self.up[key] = nn.Parameter(up.detach() * keep[:, None, None])


def _select(rows: Sequence[int]) -> slice | list[int]:
    """Neighbours as a slice, which copies nothing."""
    first, last = rows[0], rows[-1]
    return slice(first, last + 1) if list(rows) == list(range(first, last + 1)) else list(rows)


def _leaves(bank: nn.ParameterDict, chosen: slice | list[int]) -> nn.ParameterDict:
    return nn.ParameterDict({key: nn.Parameter(p.detach()[chosen]) for key, p in bank.items()})


class DocumentPredictor(Frozen):
    """Prices a stride of each of `rows` documents, then takes a step on each one's adapters.

    Document d sits in row d % rows, and each row belongs to one rank.
    """

    def __init__(
        self,
        model: GPT,
        config: DocumentAdapters,
        *,
        rows: int = 16,
        seed: int = 0,
        ranks: Ranks = ALONE,
    ) -> None:
        super().__init__(model, rows, ranks)
        self.config, self.seed = config, seed
        slots = len(model.plan.layers)
        bank = Adapters(config.adapters, model.adapter_dims(), slots, rows)
        bank.reset(warm=False, generator=torch.Generator().manual_seed(seed))
        self.bank = bank.to(self.device)
        self.first = {name: torch.zeros_like(p) for name, p in self.bank.named_parameters()}
        self.second = {name: torch.zeros_like(p) for name, p in self.bank.named_parameters()}
        self.steps = torch.zeros(rows, dtype=torch.long)
        self.documents = torch.full((rows,), -1)  # whose adapters each row holds

    def batches(self, chunk: Chunk) -> Iterator[tuple[WindowBatch, Tensor]]:
        for members in self._batches(chunk.plan):
            one = make_window_batch(chunk, members, self.device)
            adapters = self._adapters(chunk.plan, members)
            yield one, self.model(one.inputs, start=one.start, adapters=adapters)

    def learn(self, chunk: Chunk) -> None:
        plan = chunk.plan
        if not plan.ends:
            raise ValueError(
                "adapters per document need documents kept apart: plan with plan_documents, or "
                "set EvaluateConfig.documents"
            )
        for members in self._batches(plan):
            learning = tuple(i for i in members if not plan.ends[i])
            self._open(plan, learning)
            for _ in range(self.config.steps if learning else 0):
                self._step(make_window_batch(chunk, learning, self.device), plan)

    def reader(self, plan: ChunkPlan) -> Reader:
        return ModelReader(self.model, plan, lambda windows: self._adapters(plan, windows))

    def _batches(self, plan: ChunkPlan) -> list[tuple[int, ...]]:
        rows = [document % self.rows for document in plan.rows]
        if len(set(rows)) < len(rows):
            raise ValueError(
                f"a chunk holds windows of documents {plan.rows}, more than the {self.rows} rows "
                "of this predictor can keep apart: plan with the same number of rows"
            )
        mine = [i for i, row in enumerate(rows) if row % self.ranks.world_size == self.ranks.rank]
        return group_windows(plan.windows, mine, self.rows, self.model.config.train_context)

    def _adapters(self, plan: ChunkPlan, members: Sequence[int]) -> Adapters | None:
        """The adapters of the windows' documents; None where none has learned anything yet."""
        rows = [plan.rows[i] % self.rows for i in members]
        closed = [
            int(self.documents[row]) != plan.rows[i] for row, i in zip(rows, members, strict=True)
        ]
        return None if all(closed) else _RowAdapters(self.bank, rows, closed)

    @torch.no_grad()
    def _open(self, plan: ChunkPlan, members: Sequence[int]) -> None:
        """Reset the rows whose document is a new one."""
        for i in members:
            document = plan.rows[i]
            row = document % self.rows
            if int(self.documents[row]) == document:
                continue
            self.documents[row], self.steps[row] = document, 0
            for name, parameter in self.bank.named_parameters():
                self.first[name][row].zero_()
                self.second[name][row].zero_()
                if name.startswith("up."):
                    parameter[row].zero_()
            if not self.config.warm:
                self._renew(row, document)

    def _renew(self, row: int, document: int) -> None:
        # Seeded by the document, so that neither ranks nor rows change what it gets.
        generator = torch.Generator().manual_seed(self.seed + 1 + document)
        for down in self.bank.down.values():
            bound = down.size(-1) ** -0.5
            fresh = torch.empty(down[row].shape).uniform_(-bound, bound, generator=generator)
            down[row].copy_(fresh)

    def _step(self, one: WindowBatch, plan: ChunkPlan) -> None:
        """AdamW on each row by itself, on the mean loss over the targets it just priced."""
        rows = [plan.rows[i] % self.rows for i in one.members]
        adapters = _RowAdapters(self.bank, rows, [False] * len(rows))
        with torch.enable_grad():
            logits = self.model(one.inputs, start=one.start, adapters=adapters)
            loss = F.cross_entropy(logits.flatten(0, 1), one.targets.flatten(), reduction="none")
            lengths = torch.tensor(one.num_targets, device=self.device)[:, None]
            own = torch.arange(one.targets.size(1), device=self.device) < lengths
            mean = (loss.view_as(own) * own / lengths).sum()
            named = dict(adapters.named_parameters())
            gradients = torch.autograd.grad(mean, list(named.values()))
        self.steps[rows] += 1
        steps = self.steps[rows].to(self.device)[:, None, None]
        bank, chosen = dict(self.bank.named_parameters()), _select(rows)
        with torch.no_grad():
            for (name, leaf), gradient in zip(named.items(), gradients, strict=True):
                bank[name][chosen] = self._adamw(name, chosen, leaf, gradient, steps)

    def _adamw(
        self,
        name: str,
        chosen: slice | list[int],
        leaf: Tensor,
        gradient: Tensor,
        steps: Tensor,
    ) -> Tensor:
        """arXiv:1711.05101 with a count of steps for each row."""
        c, (beta1, beta2) = self.config, self.config.betas
        first = self.first[name][chosen] * beta1 + gradient * (1 - beta1)
        second = self.second[name][chosen] * beta2 + gradient.square() * (1 - beta2)
        self.first[name][chosen], self.second[name][chosen] = first, second
        root = (second / (1 - beta2**steps)).sqrt() + c.eps
        return leaf * (1 - c.lr * c.weight_decay) - c.lr * first / (1 - beta1**steps) / root

    def state_dict(self) -> dict[str, Tensor]:
        state = {f"bank/{name}": p.detach() for name, p in self.bank.named_parameters()}
        state |= {f"first/{name}": value for name, value in self.first.items()}
        state |= {f"second/{name}": value for name, value in self.second.items()}
        return state | {"steps": self.steps, "documents": self.documents}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        for name, value in self.state_dict().items():
            value.copy_(state[name])


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
        self.texts: dict[int, Tensor] = {}  # by document, what was priced of it
        self.finished: set[int] = set()
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
            self.texts[document] = text if before is None else torch.cat((before, text[1:]))
            if ends:
                self.finished.add(document)
        pauses = self.config.pauses[self.phases_done :]
        due = sum(pause <= len(self.finished) for pause in pauses)
        if due and len(self.finished) == len(self.texts) and not plan.is_last:
            self.phases_done += due
            self._run_phase()

    def _run_phase(self) -> None:
        # One rate more than parts, so that the last part is not learned at a rate of zero.
        parts = list(self._parts())
        for number, texts in enumerate(parts):
            rate = chunk_rate(self.config.sgd.schedule, number, len(parts) + 1)
            self.learner.learn(texts, rate)

    def _parts(self) -> Iterator[list[Tensor]]:
        """All finished text in file order, in runs of at least `chunk_tokens`."""
        part: list[Tensor] = []
        for document in sorted(self.texts):
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
            "lengths": torch.tensor([len(t) for t in self.texts.values()], dtype=torch.long),
            "texts": torch.cat([torch.empty(0, dtype=torch.long), *self.texts.values()]),
            "phases_done": torch.tensor(self.phases_done),
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.local.load_state_dict(_below("local/", state))
        self.learner.load_state_dict(_below("learner/", state))
        documents = state["documents"].tolist()
        texts = state["texts"].split(state["lengths"].tolist())
        self.texts = dict(zip(documents, texts, strict=True))
        self.finished = {d for d, f in zip(documents, state["finished"].tolist(), strict=True) if f}
        self.phases_done = int(state["phases_done"])


def _below(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name[len(prefix) :]: t for name, t in state.items() if name.startswith(prefix)}
