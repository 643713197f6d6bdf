"""Gradient steps on the model's own weights, after each chunk was priced (#461, #549, #1413).

The published loop with its published defaults, and the variants people tried: other optimizers,
controls only, rates per layer, a sharpness-aware step (#390). Chunks and their order come from
`predictor.py`; low-rank adapters per document are in `documents.py`.
"""

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal, Protocol, get_args

import torch
from torch import Tensor, nn

from fairway.evaluate.predictor import ALONE, Chunk, Frozen
from fairway.model.gpt import GPT
from fairway.runtime.distributed import Ranks
from fairway.train.compiled import compile_loss

Schedule = Literal["cosine", "linear", "constant"]
Optimizer = Literal["sgd", "adamw", "muon"]
Precision = Literal["float32", "bfloat16"]

# Matrices that steer rather than transform: small, and never rounded by the quantizer.
CONTROLS = (
    "residual_mix",
    "skip_weights",
    "skip_gates",
    "attention.gate",
    "lane_carry",
    "lane_route",
)


@dataclass(frozen=True, kw_only=True)
class Sgd:
    """What happens between one chunk and the next; the defaults are those of #1413."""

    chunk_tokens: int = 32_768
    epochs: int = 3
    lr: float = 0.005
    schedule: Schedule = "cosine"  # over the chunks, so that the last ones change little
    momentum: float = 0.9
    clip: float | None = 1.0  # largest norm of the gradient over all trained weights
    batch_sequences: int = 32  # per step, all ranks together
    frozen_blocks: int = 0  # the first n blocks stay as they are (#254, #691)
    weight_decay: float = 0.0
    optimizer: Optimizer = "sgd"  # muon: on the blocks' matrices, with sgd on all else
    betas: tuple[float, float] = (0.9, 0.99)  # of adamw
    trained: Literal["all", "controls"] = "all"  # controls: gains, gates and scales (#1518)
    rates: tuple[tuple[str, float], ...] = ()  # name pattern, factor on lr; the first match counts
    sharpness: float | None = None  # radius of a sharpness-aware step (arXiv:2010.01412, #390)
    precision: Precision | None = None  # of activations while learning; None: see `resolved`
    compiled: bool | None = None  # learn through torch.compile: minutes once, for faster epochs

    def __post_init__(self) -> None:
        if min(self.chunk_tokens, self.epochs, self.batch_sequences) < 1:
            raise ValueError(
                f"chunk_tokens={self.chunk_tokens}, epochs={self.epochs}, batch_sequences="
                f"{self.batch_sequences} must be at least 1; to learn nothing, set ttt=None"
            )
        if self.lr < 0 or not 0 <= self.momentum < 1 or self.weight_decay < 0:
            raise ValueError(
                f"lr={self.lr}, momentum={self.momentum}, weight_decay={self.weight_decay}: lr "
                "and weight_decay must not be negative, and momentum must lie in [0, 1)"
            )
        choices = {"schedule": Schedule, "optimizer": Optimizer}
        if self.precision is not None:
            choices["precision"] = Precision
        for name, allowed in choices.items():
            if getattr(self, name) not in get_args(allowed):
                raise ValueError(
                    f"{name}={getattr(self, name)!r}; choose one of {', '.join(get_args(allowed))}"
                )


def chunk_rate(schedule: Schedule, index: int, num_chunks: int) -> float:
    """Factor on the learning rate after chunk `index`: 1 at the first, 0 at the last.

    >>> [round(chunk_rate("cosine", i, 5), 3) for i in range(5)]
    [1.0, 0.854, 0.5, 0.146, 0.0]
    """
    done = index / max(num_chunks - 1, 1)
    if schedule == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * done))
    return 1.0 - done if schedule == "linear" else 1.0


def is_control(name: str, parameter: nn.Parameter) -> bool:
    return parameter.ndim < 2 or name.endswith(CONTROLS)


def trained_parameters(model: GPT, config: Sgd) -> dict[str, nn.Parameter]:
    """The weights that learn, by name; all others are marked as needing no gradient."""
    num_layers = model.config.num_layers
    if config.frozen_blocks > num_layers:
        raise ValueError(f"frozen_blocks={config.frozen_blocks} of a model with {num_layers}")
    frozen = ("extra_heads.", *(f"blocks.{i}." for i in range(config.frozen_blocks)))
    chosen = {}
    for name, parameter in model.named_parameters():
        learns = not name.startswith(frozen)
        learns &= config.trained == "all" or is_control(name, parameter)
        parameter.requires_grad_(learns)
        if learns:
            chosen[name] = parameter
    return chosen


class _Stepper(Protocol):
    """An optimizer as the loop sees it."""

    def step(self, lr: float) -> None: ...

    def state_dict(self) -> dict[str, Tensor]: ...

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None: ...


class _TorchStepper:
    """A `torch.optim` optimizer with one group for each rate."""

    def __init__(
        self, kind: Literal["sgd", "adamw"], named: Mapping[str, nn.Parameter], config: Sgd
    ) -> None:
        by_rate: dict[float, list[nn.Parameter]] = {}
        for name, parameter in named.items():
            by_rate.setdefault(rate_of(name, config.rates), []).append(parameter)
        groups = [{"params": members, "rate": rate} for rate, members in by_rate.items()]
        decay = config.weight_decay
        self.named = dict(named)
        self.optimizer: torch.optim.Optimizer = (
            torch.optim.SGD(groups, lr=0.0, momentum=config.momentum, weight_decay=decay)
            if kind == "sgd"
            else torch.optim.AdamW(groups, lr=0.0, betas=config.betas, weight_decay=decay)
        )

    def step(self, lr: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group["rate"]
        self.optimizer.step()

    def state_dict(self) -> dict[str, Tensor]:
        return {
            f"{name}/{key}": value
            for name, parameter in self.named.items()
            for key, value in self.optimizer.state[parameter].items()
            if isinstance(value, Tensor)
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.optimizer.state.clear()
        for path, value in state.items():
            name, _, key = path.rpartition("/")
            parameter = self.named[name]
            # AdamW counts its steps on the CPU, wherever the weights are.
            device = value.device if key == "step" else parameter.device
            self.optimizer.state[parameter][key] = value.to(device, copy=True)


class _MuonStepper:
    """Muon on the blocks' matrices, SGD on everything else."""

    def __init__(self, named: Mapping[str, nn.Parameter], config: Sgd, ranks: Ranks) -> None:
        from fairway.train.muon import Muon, MuonConfig  # most evaluations never need it

        by_rate: dict[float, dict[str, nn.Parameter]] = {}
        rest = {}
        for name, parameter in named.items():
            if name.startswith("blocks.") and not is_control(name, parameter):
                by_rate.setdefault(rate_of(name, config.rates), {})[name] = parameter
            else:
                rest[name] = parameter
        shape = MuonConfig(lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay)
        on_cpu = all(parameter.device.type == "cpu" for parameter in named.values())
        dtype = torch.float32 if on_cpu else torch.bfloat16
        self.muons = [
            (rate, Muon(matrices, shape, dtype=dtype, ranks=ranks))
            for rate, matrices in by_rate.items()
        ]
        self.rest = _TorchStepper("sgd", rest, config) if rest else None

    def step(self, lr: float) -> None:
        for rate, muon in self.muons:
            muon.lr = lr * rate
            muon.step()
        if self.rest is not None:
            self.rest.step(lr)

    def state_dict(self) -> dict[str, Tensor]:
        state = {} if self.rest is None else self.rest.state_dict()
        for _, muon in self.muons:
            state |= {f"{name}/muon": value for name, value in muon.state_dict().items()}
        return state

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        saved = {
            key.removesuffix("/muon"): value
            for key, value in state.items()
            if key.endswith("/muon")
        }
        for _, muon in self.muons:
            muon.load_state_dict({name: saved[name] for name in muon.state_dict()})
        if self.rest is not None:
            rest = {key: value for key, value in state.items() if not key.endswith("/muon")}
            self.rest.load_state_dict(rest)


def rate_of(name: str, rates: Sequence[tuple[str, float]]) -> float:
    return next((rate for pattern, rate in rates if fnmatchcase(name, pattern)), 1.0)


class WeightLearner:
    """Steps on the weights of `model`, in place; the optimizer's state lives as long as this does.

    Ranks share the sequences of each batch, however few there are; the gradient is that of the
    batch as a whole, so the number of ranks does not change what is learned.
    """

    def __init__(self, model: GPT, config: Sgd, context: int, ranks: Ranks = ALONE) -> None:
        self.model, self.config, self.context, self.ranks = model, config, context, ranks
        self.trained = trained_parameters(model, config)
        if not self.trained:
            raise ValueError(
                f"nothing to train: frozen_blocks={config.frozen_blocks}, "
                f"trained={config.trained!r} leave no weight"
            )
        self.stepper: _Stepper = (
            _MuonStepper(self.trained, config, ranks)
            if config.optimizer == "muon"
            else _TorchStepper(config.optimizer, self.trained, config)
        )
        share = len(range(ranks.rank, config.batch_sequences, ranks.world_size))
        self.compiled_shape, self.compiled_loss = (share, context), model.loss
        if config.compiled and share:
            with self._precision():
                self.compiled_loss = compile_loss(
                    model, *self.compiled_shape, model.compute_dtype, {model.loops_active}
                )

    def learn(self, texts: Sequence[Tensor], rate: float) -> None:
        """All epochs over `texts`, each (n,) int64, at `rate` times the configured lr."""
        pieces = [piece for text in texts for piece in cut_pieces(text, self.context)]
        size = self.config.batch_sequences
        for _ in range(self.config.epochs):
            for begin in range(0, len(pieces), size):
                self._step(pieces[begin : begin + size], self.config.lr * rate)

    def _step(self, batch: Sequence[Tensor], lr: float) -> None:
        weights = list(self.trained.values())
        self._set_gradients(batch)
        if self.config.sharpness is not None:
            self._look_uphill(batch, self.config.sharpness)
        if self.config.clip is not None:
            nn.utils.clip_grad_norm_(weights, self.config.clip)
        self.stepper.step(lr)

    @torch.no_grad()
    def _look_uphill(self, batch: Sequence[Tensor], radius: float) -> None:
        """Replace the gradient by that at the worst place within `radius`, to first order."""
        weights = list(self.trained.values())
        before = [weight.clone() for weight in weights]
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        climb = radius / (nn.utils.get_total_norm(gradients).item() + 1e-12)
        for weight, gradient in zip(weights, gradients, strict=True):
            weight.add_(gradient, alpha=climb)
        self._set_gradients(batch)
        for weight, old in zip(weights, before, strict=True):
            weight.copy_(old)

    @contextmanager
    def _precision(self) -> Iterator[None]:
        before = self.model.compute_dtype
        self.model.compute_dtype = getattr(torch, self.config.precision or "float32")
        try:
            yield
        finally:
            self.model.compute_dtype = before

    @torch.enable_grad()
    def _set_gradients(self, batch: Sequence[Tensor]) -> None:
        """The gradient of the batch's mean loss, the same on every rank."""
        weights = list(self.trained.values())
        for weight in weights:
            weight.grad = None
        total = sum(len(piece) - 1 for piece in batch)
        for tokens in equally_long(batch[self.ranks.rank :: self.ranks.world_size]):
            tokens = tokens.to(weights[0].device)
            inputs, targets = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()
            # What is left over at a chunk's end has shapes of its own, not worth compiling for.
            whole = inputs.shape == self.compiled_shape
            with self._precision():
                loss = (self.compiled_loss if whole else self.model.loss)(inputs, targets)
            (loss * (tokens[:, 1:].numel() / total)).backward()
        for weight in weights:
            if weight.grad is None:  # this rank has nothing to do
                weight.grad = torch.zeros_like(weight)
        self.ranks.sum_([weight.grad for weight in weights if weight.grad is not None])

    def state_dict(self) -> dict[str, Tensor]:
        weights = {f"weights/{name}": weight.detach() for name, weight in self.trained.items()}
        return weights | {
            f"optimizer/{name}": value for name, value in self.stepper.state_dict().items()
        }

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        for name, weight in self.trained.items():
            weight.copy_(state[f"weights/{name}"])
        self.stepper.load_state_dict(
            {
                name.removeprefix("optimizer/"): value
                for name, value in state.items()
                if name.startswith("optimizer/")
            }
        )


def cut_pieces(text: Tensor, context: int) -> list[Tensor]:
    """Runs of `context` inputs and their targets, and what is left at the end: a piece's first
    token is the last target of the piece before it.

    >>> [piece.tolist() for piece in cut_pieces(torch.arange(8), 3)]
    [[0, 1, 2, 3], [3, 4, 5, 6], [6, 7]]
    """
    begins = range(0, len(text) - 1, context)
    return [text[begin : begin + context + 1] for begin in begins]


def equally_long(pieces: Sequence[Tensor]) -> Iterator[Tensor]:
    """The pieces as (B, T) tensors, one for each length."""
    by_length: dict[int, list[Tensor]] = {}
    for piece in pieces:
        by_length.setdefault(len(piece), []).append(piece)
    yield from (torch.stack(group) for group in by_length.values())


class SgdPredictor(Frozen):
    """Prices a chunk, then takes gradient steps on it; the last chunk is not learned from.

    Works on a copy of `model`: what the caller holds stays fit to be scored again.
    """

    def __init__(
        self,
        model: GPT,
        config: Sgd,
        *,
        context: int,
        rows: int = 16,
        ranks: Ranks = ALONE,
        cached: int | None = None,
    ) -> None:
        super().__init__(copy.deepcopy(model), rows, ranks, cached)
        self.config = config
        self.learner = WeightLearner(self.model, config, context, ranks)

    def learn(self, chunk: Chunk) -> None:
        if chunk.plan.is_last:
            return  # nobody would see what it taught
        plan = chunk.plan
        rate = chunk_rate(self.config.schedule, plan.index, plan.num_chunks)
        self.learner.learn(chunk.span_texts, rate)

    def state_dict(self) -> dict[str, Tensor]:
        return self.learner.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.learner.load_state_dict(state)
