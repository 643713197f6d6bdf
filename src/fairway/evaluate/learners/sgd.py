"""Gradient steps on the model's own weights, after each chunk was scored (#461, #549, #1413).

The published loop with its published defaults, and the variants people tried: other optimizers,
controls only, rates per layer, a sharpness-aware step (#390). Low-rank adapters per document are in
`documents.py`.
"""

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from fairway.evaluate.chunks import Chunk, ChunkPlan
from fairway.evaluate.frozen import Frozen
from fairway.evaluate.learner import Learner, Precision, Trial, WindowConfig
from fairway.evaluate.learners.optimizers import Optimizer, is_control, is_matrix, new_stepper
from fairway.evaluate.learners.pause_text import packed_rows
from fairway.evaluate.ledger import Margins
from fairway.evaluate.predictor import ALONE, Rounding
from fairway.model.gpt import GPT
from fairway.model.segments import Segments, document_segments
from fairway.runtime.cuda_graphs import graphed_loss
from fairway.runtime.device import send
from fairway.runtime.distributed import Ranks
from fairway.runtime.kernels import kernels_in_use
from fairway.runtime.tensor_file import under
from fairway.train.compiled import compile_loss

Schedule = Literal["cosine", "linear", "constant"]
MOST_SEQUENCES = 32  # of one forward pass, as the published loops have them on each machine
Batch = Sequence[Tensor] | Tensor  # sequences of a batch, or one packed row


@dataclass(frozen=True, kw_only=True)
class Sgd(Learner):
    """What happens between one chunk and the next; the defaults are those of #1413."""

    rates_follow_length: ClassVar[bool] = True

    chunk_tokens: int = 32_768  # number of tokens scored before it learns from them
    epochs: int = 3  # number of passes over each chunk
    lr: float = 0.005  # learning rate at the first chunk
    schedule: Schedule = "cosine"  # how the rate falls over the chunks
    momentum: float = 0.9  # of sgd and muon; adamw has betas
    # largest norm of the gradient over all trained weights; None: it is not clipped
    clip: float | None = 1.0
    batch_sequences: int = 32  # number of sequences per step, over all ranks
    # whether what whole contexts leave of a chunk teaches, too; the published loops drop it
    leftover: bool = True
    frozen_blocks: int = 0  # so many first blocks stay as they are (#254, #691)
    weight_decay: float = 0.0  # decoupled with adamw and muon, part of the gradient with sgd
    optimizer: Optimizer = "sgd"  # muon: on the blocks' matrices, with sgd on all else
    betas: tuple[float, float] = (0.9, 0.99)  # AdamW's
    trained: Literal["all", "controls"] = "all"  # controls: gains, gates, scales (#1518)
    rates: tuple[tuple[str, float], ...] = ()  # name pattern, factor on lr; the first match counts
    # radius of a sharpness-aware step (arXiv:2010.01412, #390); None: a plain step
    sharpness: float | None = None
    # number type of activations while learning; None: what training is fastest with here
    precision: Precision | None = None
    # learn through torch.compile: minutes once, then faster epochs; None: as training did
    compiled: bool | None = None
    # replay whole batches as CUDA graphs: one launch, the same result; a CPU takes no notice
    graphed: bool = False

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

    def predictor(
        self, model: GPT, windows: WindowConfig, *, seed: int, ranks: Ranks
    ) -> "SgdPredictor":
        return SgdPredictor(
            model,
            self,
            context=windows.known_context,
            rows=windows.rows,
            ranks=ranks,
            cached=windows.cached,
        )

    def chunk_targets(self) -> int:
        return self.chunk_tokens

    def check(self, windows: WindowConfig) -> None:
        if self.chunk_tokens % windows.stride:
            below = self.chunk_tokens // windows.stride * windows.stride
            raise ValueError(
                f"ttt.chunk_tokens={self.chunk_tokens} is not a multiple of stride="
                f"{windows.stride}; set it to {max(below, windows.stride)}"
            )

    def resolved(self, precision: Precision, compiled: bool) -> "Sgd":
        on = compiled if self.compiled is None else self.compiled
        return replace(self, precision=self.precision or precision, compiled=on)

    def margins(self) -> Margins:
        # Steps that follow from rounded gradients differ less, and Adam's hardly any more.
        return Margins(state=2.0 ** {"sgd": -40, "muon": -42, "adamw": -46}[self.optimizer])

    def describe(self) -> str:
        return f"{self.epochs} epochs"

    def with_epochs(self, epochs: int) -> "Sgd":
        return replace(self, epochs=epochs)

    def lesson_tokens(self, plan: ChunkPlan) -> int:
        return self.epochs * plan.span_targets

    def step_targets(self, windows: WindowConfig) -> int:
        # A chunk may have fewer sequences than a step could take.
        return self.whole_batch(windows.known_context) * windows.known_context

    def whole_batch(self, context: int) -> int:
        """Sequences of a step that has as many as a chunk can give it."""
        return min(self.batch_sequences, max(1, self.chunk_tokens // context))

    def for_segments(self, share: int, context: int) -> "Sgd":
        # What a segment has of a chunk may be shorter than a context, and a step is to learn from
        # as many tokens as it does where the model is scored.
        return replace(self, batch_sequences=self.batch_sequences * max(1, context // share))

    def smoke(self, context: int) -> "Sgd":
        return replace(self, chunk_tokens=4 * context, epochs=1, batch_sequences=2)

    def suggest(self, trial: Trial, windows: WindowConfig) -> "Sgd":
        return self.suggest_steps(trial, windows.stride)

    def suggest_steps(self, trial: Trial, stride: int, prefix: str = "") -> "Sgd":
        chunk = max(stride, self.chunk_tokens // stride * stride)
        sizes = sorted({max(stride, chunk // 2 // stride * stride), chunk, 2 * chunk})
        return replace(
            self,
            lr=trial.suggest_float(f"{prefix}lr", self.lr / 10, self.lr * 10, log=True),
            epochs=trial.suggest_int(f"{prefix}epochs", 1, max(4, 2 * self.epochs)),
            momentum=trial.suggest_float(f"{prefix}momentum", 0.0, 0.95),
            chunk_tokens=trial.suggest_categorical(f"{prefix}chunk_tokens", sizes),
            schedule=trial.suggest_categorical(f"{prefix}schedule", ["cosine", "constant"]),
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
        self.stepper = new_stepper(config, self.trained, ranks)
        self.rounding: Rounding | None = None  # of gradients; None: they stay as they are
        share = len(range(ranks.rank, config.whole_batch(context), ranks.world_size))
        share = min(share, MOST_SEQUENCES)
        self.compiled_shape, self.compiled_loss = (share, context), model.loss
        if config.compiled and share and not self._settled:
            with self._precision():
                self.compiled_loss = compile_loss(
                    model, *self.compiled_shape, model.compute_dtype, {model.loops_active}
                )
        if config.graphed and share and not self._settled:
            with self._precision(), kernels_in_use(), torch.enable_grad():
                shape = *self.compiled_shape, model.config.vocab_size
                self.compiled_loss = graphed_loss(model, self.compiled_loss, *shape)

    @property
    def _settled(self) -> bool:
        """Weights in float64 are those of settled arithmetic: learned in it, and not compiled."""
        return next(iter(self.trained.values())).dtype == torch.float64

    def restart(self) -> None:
        """Forget the optimizer's state, not the weights."""
        self.stepper = new_stepper(self.config, self.trained, self.ranks)

    def learn(self, texts: Sequence[Tensor], rate: float) -> None:
        """All epochs over `texts`, each (n,) int64, at `rate` times the configured lr."""
        pieces = [piece for text in texts for piece in cut_pieces(text, self.context)]
        if not self.config.leftover:
            pieces = [piece for piece in pieces if len(piece) == self.context + 1]
        size = self.config.batch_sequences
        for _ in range(self.config.epochs):
            for begin in range(0, len(pieces), size):
                self._step(pieces[begin : begin + size], self.config.lr * rate)

    def learn_packed(self, piece: Tensor, rate: float) -> None:
        """All epochs over piece (n,) int64, in rows of whole contexts in which documents, and
        contexts of longer ones, are kept apart (#1610); at `rate` times the configured lr."""
        rows = packed_rows(piece, self.context, self.config.batch_sequences)
        for _ in range(self.config.epochs):
            for row in rows:
                self._step(row, self.config.lr * rate)

    def _step(self, batch: Batch, lr: float) -> None:
        weights = list(self.trained.values())
        self._set_gradients(batch)
        if self.config.sharpness is not None:
            self._look_uphill(batch, self.config.sharpness)
        self._round_gradients()
        if self.config.clip is not None:
            nn.utils.clip_grad_norm_(weights, self.config.clip)
        self.stepper.step(lr)

    def _round_gradients(self) -> None:
        """Before an optimizer that makes as much of small gradients as of large ones."""
        kind = self.config.optimizer
        if self.rounding is None or kind == "sgd":
            return
        chosen = {
            name: weight.grad
            for name, weight in self.trained.items()
            if weight.grad is not None and (kind == "adamw" or is_matrix(name, weight))
        }
        self.rounding(chosen, one_by_one=kind == "adamw")

    @torch.no_grad()
    def _look_uphill(self, batch: Batch, radius: float) -> None:
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
        precision = "float64" if self._settled else self.config.precision or "float32"
        self.model.compute_dtype = getattr(torch, precision)
        try:
            yield
        finally:
            self.model.compute_dtype = before

    @torch.enable_grad()
    def _set_gradients(self, batch: Batch) -> None:
        """The gradient of the batch's mean loss, the same on every rank."""
        weights = list(self.trained.values())
        for weight in weights:
            weight.grad = None
        packed = isinstance(batch, Tensor)
        with kernels_in_use():
            for loss in self._packed_losses(batch) if packed else self._losses(batch):
                loss.backward()
        for weight in weights:
            if weight.grad is None:  # this rank has nothing to do
                weight.grad = torch.zeros_like(weight)
        self.ranks.sum_([weight.grad for weight in weights if weight.grad is not None])

    def _losses(self, batch: Sequence[Tensor]) -> Iterator[Tensor]:
        """This rank's share of the batch's mean loss, in parts."""
        total = sum(len(piece) - 1 for piece in batch)
        for tokens in equally_long(batch[self.ranks.rank :: self.ranks.world_size]):
            tokens = send(tokens, self.model.embed.weight.device)
            inputs, targets = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()
            # What is left over at a chunk's end has shapes of its own, not worth compiling for.
            whole = inputs.shape == self.compiled_shape
            with self._precision():
                loss = (self.compiled_loss if whole else self.model.loss)(inputs, targets)
            yield loss * (tokens[:, 1:].numel() / total)

    def _packed_losses(self, row: Tensor) -> Iterator[Tensor]:
        """This rank's share of the mean loss of a packed row, in one part."""
        inputs, targets = row[:-1], row[1:]
        spans = document_segments(inputs, self.model.config.bos_id, self.context)
        mine = spans[self.ranks.rank :: self.ranks.world_size]
        if mine:
            device = self.model.embed.weight.device
            with self._precision():
                nats = self.model.packed_nats(
                    send(inputs, device), send(targets, device), Segments.of(mine)
                )
            yield nats / len(targets)

    def state_dict(self) -> dict[str, Tensor]:
        weights = {f"weights/{name}": weight.detach() for name, weight in self.trained.items()}
        return weights | {
            f"optimizer/{name}": value for name, value in self.stepper.state_dict().items()
        }

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        for name, weight in self.trained.items():
            weight.copy_(state[f"weights/{name}"])
        self.stepper.load_state_dict(under("optimizer/", state))


def cut_pieces(text: Tensor, context: int) -> list[Tensor]:
    """Runs of `context` inputs and their targets, and what is left at the end: a piece's first
    token is the last target of the piece before it.

    >>> [piece.tolist() for piece in cut_pieces(torch.arange(8), 3)]
    [[0, 1, 2, 3], [3, 4, 5, 6], [6, 7]]
    """
    begins = range(0, len(text) - 1, context)
    return [text[begin : begin + context + 1] for begin in begins]


def equally_long(pieces: Sequence[Tensor]) -> Iterator[Tensor]:
    """The pieces as (B, T) tensors of one length each, no more than memory is likely to hold."""
    by_length: dict[int, list[Tensor]] = {}
    for piece in pieces:
        by_length.setdefault(len(piece), []).append(piece)
    for group in by_length.values():
        for begin in range(0, len(group), MOST_SEQUENCES):
            yield torch.stack(group[begin : begin + MOST_SEQUENCES])


class SgdPredictor(Frozen):
    """Scores a chunk, then takes gradient steps on it; the last chunk is not learned from.

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

    def round_gradients(self, rounding: Rounding) -> None:
        self.learner.rounding = rounding

    def state_dict(self) -> dict[str, Tensor]:
        return self.learner.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.learner.load_state_dict(state)
