"""Low-rank adapters that learn within a document and are reset for the next (#77, #1530).

Batches of documents learn in step: one optimizer for all, made anew for each batch. What an adapter
is, is in `model/adapters.py`; which documents are side by side, in which order, in
`evaluate/orders.py`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fairway.evaluate.chunks import Chunk, ChunkPlan
from fairway.evaluate.frozen import Frozen, ModelReader
from fairway.evaluate.learner import Learner, Trial, WindowConfig
from fairway.evaluate.ledger import Margins
from fairway.evaluate.predictor import ALONE, Reader, Rounding
from fairway.evaluate.window_batch import WindowBatch, group_windows, make_window_batch
from fairway.model.adapters import AdapterConfig, Adapters
from fairway.model.decode_step import window_logits
from fairway.model.gpt import GPT
from fairway.runtime.device import send
from fairway.runtime.distributed import Ranks
from fairway.runtime.kernels import kernels_in_use
from fairway.runtime.tensor_file import under


@dataclass(frozen=True, kw_only=True)
class DocumentAdapters(Learner):
    """One set of adapters per document; a step after each stride of it, from its first on.

    Defaults as in #1855.
    """

    adapters: AdapterConfig = field(
        default_factory=lambda: AdapterConfig(
            rank=80, alpha=144.0, targets=("query", "key", "value", "output", "mlp", "head")
        )
    )
    lr: float = 1e-4  # learning rate of Adam
    betas: tuple[float, float] = (0.0, 0.99)  # Adam's
    eps: float = 1e-10  # Adam's
    weight_decay: float = 0.5  # decoupled: each step shrinks the adapters by lr * weight_decay
    steps: int = 1  # number of steps after each stride
    warm: bool = True  # A goes on from one batch of documents to the next, B starts at zero

    def __post_init__(self) -> None:
        if self.steps < 1 or self.lr < 0 or self.weight_decay < 0:
            raise ValueError(
                f"steps={self.steps}, lr={self.lr}, weight_decay={self.weight_decay}: needs at "
                "least one step and no negative number; to learn nothing, set ttt=None"
            )
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas={self.betas}: both must lie in [0, 1)")

    def predictor(
        self, model: GPT, windows: WindowConfig, *, seed: int, ranks: Ranks
    ) -> "DocumentPredictor":
        return DocumentPredictor(model, self, rows=windows.rows, seed=seed, ranks=ranks)

    def chunk_targets(self) -> None:
        return None

    def margins(self) -> Margins:
        # Gradients of A hang on a B that is next to zero, and come further apart than others; once
        # they are rounded, what follows from them hardly does, and there are millions of it.
        return Margins(gradient=2.0**-39, state=2.0**-46)

    def lesson_tokens(self, plan: ChunkPlan) -> int:
        return self.steps * plan.lasting_inputs

    def smoke(self, context: int) -> "DocumentAdapters":
        return replace(self, adapters=replace(self.adapters, rank=2))

    def suggest(self, trial: Trial, windows: WindowConfig) -> "DocumentAdapters":
        rank = trial.suggest_categorical("rank", [4, 8, 16, 32, 64])
        alpha = rank * trial.suggest_float("alpha_over_rank", 0.5, 4.0)
        return replace(
            self,
            adapters=replace(self.adapters, rank=rank, alpha=alpha),
            lr=trial.suggest_float("adapter_lr", self.lr / 10, self.lr * 30, log=True),
            weight_decay=trial.suggest_float("adapter_weight_decay", 0.0, 1.0),
            steps=trial.suggest_int("steps", 1, 3),
            warm=trial.suggest_categorical("warm", [True, False]),
        )


class _RowAdapters(Adapters):
    """Some rows of a bank of adapters, as leaves that gradients can be taken of."""

    def __init__(self, bank: Adapters, rows: Sequence[int]) -> None:
        nn.Module.__init__(self)
        self.scale = bank.scale
        chosen = _select(rows, next(iter(bank.parameters())).device)
        self.down = _leaves(bank.down, chosen)
        self.up = _leaves(bank.up, chosen)


def _select(rows: Sequence[int], device: torch.device) -> slice | Tensor:
    """Neighbours as a slice, which copies nothing."""
    first, last = rows[0], rows[-1]
    if list(rows) == list(range(first, last + 1)):
        return slice(first, last + 1)
    return send(torch.tensor(rows), device)


def _leaves(bank: nn.ParameterDict, chosen: slice | Tensor) -> nn.ParameterDict:
    return nn.ParameterDict({key: nn.Parameter(p.detach()[chosen]) for key, p in bank.items()})


Draw = Callable[[int, int | None], Mapping[str, Tensor]]


class DocumentPredictor(Frozen):
    """Scores a stride of each of a batch's documents, then takes a step on each one's adapters.

    A document's adapters are the bank's row of its place in the batch; each row belongs to one
    rank. A batch begins with B and the optimizer at zero. A goes on where it is warm, save that a
    batch of fewer documents than there are rows has one of its own: it leaves the others' alone.

    draw  what A begins with: (renewals so far, batch) -> tensors (rows, rank, in) by the bank's
          names; the batch is None for what goes on from batch to batch. None: uniform within
          1 / sqrt(in), from the seed
    """

    def __init__(
        self,
        model: GPT,
        config: DocumentAdapters,
        *,
        rows: int = 16,
        seed: int = 0,
        ranks: Ranks = ALONE,
        draw: Draw | None = None,
    ) -> None:
        super().__init__(model, rows, ranks)
        self.config, self.seed, self.draw = config, seed, draw or self._drawn
        slots = len(model.plan.layers)
        bank = Adapters(config.adapters, model.adapter_dims(), slots, rows)
        self.bank = bank.to(self.device, model.embed.weight.dtype)
        self.first = {name: torch.zeros_like(p) for name, p in self.bank.named_parameters()}
        self.second = {name: torch.zeros_like(p) for name, p in self.bank.named_parameters()}
        self.rounding: Rounding | None = None  # of gradients; None: they stay as they are
        self.aside: dict[str, Tensor] = {}  # A of full batches, while an incomplete one has its own
        # how often A was renewed, steps since the batch began, and the batch that the bank holds
        self.counts: dict[str, int] = {}
        self.restart()

    def restart(self) -> None:
        """Begin as at first, with whatever `draw` draws."""
        self.aside, self.counts = {}, {"renewals": 0, "steps": 0, "batch": -1}
        self._draw_anew(None)

    def renew(self) -> None:
        """Draw A anew: what it had learned was learned beside weights that have changed."""
        self.aside = {}
        self.counts |= {"renewals": self.counts["renewals"] + 1, "batch": -1}
        self._draw_anew(None)

    def batches(self, chunk: Chunk) -> Iterator[tuple[WindowBatch, Tensor]]:
        for members in self._batches(chunk.plan):
            one = make_window_batch(chunk, members, self.device)
            adapters = self._adapters(chunk.plan, members)
            yield one, window_logits(self.model, one.inputs, start=one.start, adapters=adapters)

    def learn(self, chunk: Chunk) -> None:
        plan = chunk.plan
        if all(plan.ends) and plan.ends:
            return  # nobody would see what it taught
        batches = self._batches(plan)
        if plan.batch != self.counts["batch"]:
            self._open(plan)
        lessons = [
            make_window_batch(chunk, learning, self.device)
            for members in batches
            if (learning := tuple(i for i in members if not plan.ends[i]))
        ]
        for _ in range(self.config.steps):
            self._step(lessons, plan)

    def round_gradients(self, rounding: Rounding) -> None:
        self.rounding = rounding

    def reader(self, plan: ChunkPlan) -> Reader:
        return ModelReader(self.model, plan, lambda windows: self._adapters(plan, windows))

    def _batches(self, plan: ChunkPlan) -> list[tuple[int, ...]]:
        if len(plan.places) < len(plan.windows):
            raise ValueError(
                "adapters per document need documents kept apart: plan with plan_documents, or "
                "set EvaluateConfig.documents"
            )
        if max(plan.places, default=0) >= self.rows:
            raise ValueError(
                f"a chunk holds windows of {max(plan.places) + 1} documents side by side, more "
                f"than the {self.rows} rows of this predictor: plan with the same number of rows"
            )
        mine = [
            i
            for i, place in enumerate(plan.places)
            if place % self.ranks.world_size == self.ranks.rank
        ]
        return group_windows(plan.windows, mine, self.rows, self.model.config.train_context)

    def _adapters(self, plan: ChunkPlan, members: Sequence[int]) -> Adapters | None:
        """The adapters of the windows' documents; None where they have not learned anything yet."""
        if plan.batch != self.counts["batch"]:
            return None
        return _RowAdapters(self.bank, [plan.places[i] for i in members])

    @torch.no_grad()
    def _open(self, plan: ChunkPlan) -> None:
        """Begin with a batch of documents that nothing was learned from yet."""
        incomplete = plan.batch_size < self.rows
        if incomplete and not self.aside:
            self.aside = {key: down.detach().clone() for key, down in self.bank.down.items()}
        if incomplete or not self.config.warm:
            self._draw_anew(plan.batch)
        elif self.aside:
            for key, down in self.bank.down.items():
                down.copy_(self.aside[key])
            self.aside = {}
        self.counts |= {"steps": 0, "batch": plan.batch}
        for held in (self.first, self.second):
            for value in held.values():
                value.zero_()
        self.bank.reset(warm=True)

    @torch.no_grad()
    def _draw_anew(self, batch: int | None) -> None:
        for key, fresh in self.draw(self.counts["renewals"], batch).items():
            self.bank.down[key].copy_(send(fresh, self.device))

    def _drawn(self, renewals: int, batch: int | None) -> dict[str, Tensor]:
        # A batch's own by document, so that neither ranks nor rows change what each of them gets.
        first = None if batch is None else batch * self.rows
        numbers = [0] if first is None else [1 + first + row for row in range(self.rows)]
        seeds = [np.random.SeedSequence((self.seed, renewals, n)) for n in numbers]
        generators = [
            torch.Generator().manual_seed(int(seed.generate_state(1)[0])) for seed in seeds
        ]
        fresh = {}
        for key, down in self.bank.down.items():
            shape, bound = (self.rows // len(numbers), *down.shape[1:]), down.size(-1) ** -0.5
            empty = [torch.empty(shape, dtype=down.dtype) for _ in generators]
            rows = [
                row.uniform_(-bound, bound, generator=generator)
                for row, generator in zip(empty, generators, strict=True)
            ]
            fresh[key] = torch.cat(rows)
        return fresh

    def _step(self, lessons: Sequence[WindowBatch], plan: ChunkPlan) -> None:
        """AdamW on all rows, those that do not learn included: their A decays with the others'."""
        gradients = {name: torch.zeros_like(p) for name, p in self.bank.named_parameters()}
        for one in lessons:
            rows = [plan.places[i] for i in one.members]
            adapters = _RowAdapters(self.bank, rows)
            for name, gradient in self._gradients(one, adapters).items():
                gradients[name][_select(rows, self.device)] = gradient
        if self.rounding is not None:
            self.rounding(gradients, one_by_one=True)
        self.counts["steps"] += 1
        with torch.no_grad():
            for name, parameter in self.bank.named_parameters():
                self._adamw(name, parameter, gradients[name])

    def _gradients(self, one: WindowBatch, adapters: Adapters) -> dict[str, Tensor]:
        """Of the mean loss over each row's own targets, summed over rows."""
        with torch.enable_grad(), kernels_in_use():
            logits = self.model(one.inputs, start=one.start, adapters=adapters)
            loss = F.cross_entropy(logits.flatten(0, 1), one.targets.flatten(), reduction="none")
            lengths = send(torch.tensor(one.num_targets), self.device)[:, None]
            own = torch.arange(one.targets.size(1), device=self.device) < lengths
            mean = (loss.view_as(own) * own / lengths).sum()
            named = dict(adapters.named_parameters())
            # A looped layer may have a place in the plan in which it does not run (`GPT.hidden`).
            found = torch.autograd.grad(mean, list(named.values()), allow_unused=True)
            return {n: g for n, g in zip(named, found, strict=True) if g is not None}

    def _adamw(self, name: str, parameter: Tensor, gradient: Tensor) -> None:
        """arXiv:1711.05101."""
        c, (beta1, beta2), steps = self.config, self.config.betas, self.counts["steps"]
        first = self.first[name].mul_(beta1).add_(gradient, alpha=1 - beta1)
        second = self.second[name].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        root = (second / (1 - beta2**steps)).sqrt_().add_(c.eps)
        parameter.mul_(1 - c.lr * c.weight_decay)
        parameter.addcdiv_(first, root, value=-c.lr / (1 - beta1**steps))

    def state_dict(self) -> dict[str, Tensor]:
        state = {f"bank/{name}": p.detach() for name, p in self.bank.named_parameters()}
        state |= {f"first/{name}": value for name, value in self.first.items()}
        state |= {f"second/{name}": value for name, value in self.second.items()}
        state |= {f"aside/{name}": value for name, value in self.aside.items()}
        return state | {name: torch.tensor(number) for name, number in self.counts.items()}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.aside = {
            name: value.to(self.device, copy=True) for name, value in under("aside/", state).items()
        }
        for name, parameter in self.bank.named_parameters():
            parameter.copy_(state[f"bank/{name}"])
            self.first[name].copy_(state[f"first/{name}"])
            self.second[name].copy_(state[f"second/{name}"])
        self.counts = {name: int(state[name]) for name in self.counts}
