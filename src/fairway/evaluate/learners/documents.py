"""Low-rank adapters that learn within a document and are reset for the next (#77, #1530).

Documents stay in file order: sorting them by length, as the published evaluators do, lets what is
learned depend on text still to come. What an adapter is, is in `model/adapters.py`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fairway.evaluate.chunks import Chunk, ChunkPlan
from fairway.evaluate.frozen import Frozen, ModelReader
from fairway.evaluate.learner import Learner, Trial, WindowConfig
from fairway.evaluate.predictor import ALONE, Reader
from fairway.evaluate.window_batch import WindowBatch, group_windows, make_window_batch
from fairway.model.adapters import AdapterConfig, Adapters
from fairway.model.gpt import GPT
from fairway.runtime.distributed import Ranks


@dataclass(frozen=True, kw_only=True)
class DocumentAdapters(Learner):
    """One set of adapters per document; a step after each stride of it. Defaults as in #1855."""

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
    warm: bool = True  # A goes on from one document to the next of its row, B starts at zero

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
    """Scores a stride of each of `rows` documents, then takes a step on each one's adapters.

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
        bank = bank.to(model.embed.weight.dtype)
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
            fresh = torch.empty(down[row].shape, dtype=down.dtype)
            fresh.uniform_(-bound, bound, generator=generator)
            down[row].copy_(fresh)

    def _step(self, one: WindowBatch, plan: ChunkPlan) -> None:
        """AdamW on each row by itself, on the mean loss over the targets it just scored."""
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
        if gradients[0].dtype == torch.float64:
            steps = steps.double()  # a float to the power of whole numbers is float32
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
