"""How much memory a training step takes on each rank, before any of it is allocated.

The step itself runs on tensors that have shapes and no values, and what would be alive is counted
at every operation. So what a recipe adds to a model is in the count without a formula for it. It is
the step as it runs uncompiled, with attention that keeps no scores; through `torch.compile` it
takes less.
"""

# torch names its foreach functions as if they were private.
# pyright: reportPrivateImportUsage=false

import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fairway.model.blank import num_params
from fairway.model.depth import depth_plan
from fairway.model.gpt import GPT
from fairway.model.model_config import ModelConfig
from fairway.runtime.kernels import attend_plain
from fairway.train.config import TrainConfig
from fairway.train.param_groups import build_optimizers

GIB = 2**30
SPARE = 0.08  # of a GPU's memory: its context, the libraries' workspaces, fragments


@dataclass(frozen=True, kw_only=True)
class StepMemory:
    """Bytes on one rank.

    rows   of a micro-batch
    kept   from one step to the next: weights, their average, the optimizer's state
    peak   most of all at any moment of a step, `kept` included
    """

    rows: int
    kept: int
    peak: int


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all tensors that operations make while it is on and that are alive."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._known: weakref.WeakSet[Any] = weakref.WeakSet()

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(made):
            if isinstance(leaf, Tensor):
                self._note(leaf.untyped_storage())
        return made

    def _note(self, storage: torch.UntypedStorage) -> None:
        if storage in self._known:
            return
        self._known.add(storage)
        size = storage.nbytes()
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._forget, size)

    def _forget(self, size: int) -> None:
        self.live -= size


def predict_step(
    model_config: ModelConfig, config: TrainConfig, dtype: torch.dtype, *, rows: int, context: int
) -> StepMemory:
    """The memory of a step of micro-batches of `rows` times `context` tokens in `dtype`; the first
    steps are without, later ones with the loop: what counts is with it."""
    # Takes a second to import, and most runs never ask.
    from torch._subclasses.fake_tensor import FakeTensorMode

    count = LiveBytes()
    with FakeTensorMode(), count, _as_kernels_keep():
        model = GPT(model_config).train()
        model.compute_dtype = dtype
        optimizers = build_optimizers(model, config.optimizer, muon_dtype=dtype)
        average = [parameter.detach().clone() for parameter in model.parameters()]
        tokens = torch.zeros((rows, context), dtype=torch.long)
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizers.step()  # from now on its state is there
        optimizers.zero_grad()
        kept = count.live
        model.loss(tokens, tokens).backward()
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        torch._foreach_mul_(gradients, (1.0 / (norm + 1e-6)).clamp(max=1.0))
        optimizers.step()
        del average
    return StepMemory(rows=rows, kept=kept, peak=count.peak)


class _Loss(torch.autograd.Function):
    """What all our forms of the loss keep: the derivative by the logits, in their type."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor, softcap: float | None) -> Tensor:
        ctx.save_for_backward(torch.empty_like(logits))
        # Rows are worked on in blocks of float32, four such at once (`kernels.py`).
        blocks = logits.new_empty((4, min(1 << 17, logits.numel())), dtype=torch.float32)
        del blocks
        return logits.new_empty((), dtype=torch.float32)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, None, None]:
        (d_logits,) = ctx.saved_tensors
        return d_logits * grads[0].to(d_logits.dtype), None, None


@contextmanager
def _as_kernels_keep() -> Iterator[None]:
    """Attention that keeps no scores, and a loss that is not counted block by block."""
    with (
        patch("fairway.model.attention.attend", attend_plain),
        patch("fairway.model.gpt.softcapped_cross_entropy", _Loss.apply),
    ):
        yield


def require_memory(
    model_config: ModelConfig, config: TrainConfig, device: torch.device, dtype: torch.dtype
) -> str:
    """What a step will take on each rank and what is free, in words for the log.

    Raises ValueError where it does not fit, naming the micro-batches that do.
    """
    free = free_bytes(device)
    batch = config.batch
    wanted = predict_step(model_config, config, dtype, rows=batch.rows, context=batch.context)
    said = f"a step takes up to {wanted.peak / GIB:.1f} GiB on each rank; {free / GIB:.1f} are free"
    if wanted.peak <= free:
        return said
    for rows in (rows for rows in range(batch.rows - 1, 0, -1) if batch.rows % rows == 0):
        fewer = predict_step(model_config, config, dtype, rows=rows, context=batch.context)
        if fewer.peak <= free:
            parts = batch.rows // rows
            raise ValueError(
                f"too little memory: {said}. Micro-batches of {rows} rows fit, and {parts} times "
                f"as many of them make the same step: --train.batch.rows {rows} "
                f"--train.batch.micro_batches {batch.micro_batches * parts}"
            )
    raise ValueError(
        f"too little memory: {said}, and not even one row of {batch.context:,} tokens fits; take a "
        f"smaller model or context, or a device with more"
    )


def surely_fits(model_config: ModelConfig, config: TrainConfig, device: torch.device) -> bool:
    """Whether a step fits many times over, so that counting it exactly is for nothing."""
    plan = depth_plan(model_config.num_layers, model_config.loop)
    width = model_config.model_dim * (8 + 4 * model_config.mlp.ratio)
    scores = model_config.attention.num_heads * config.batch.context
    per_token = len(plan.layers) * (width + scores) + 6 * model_config.vocab_size
    tokens = config.batch.rows * config.batch.context
    return 4 * (8 * num_params(model_config) + per_token * tokens) < free_bytes(device)


def free_bytes(device: torch.device) -> int:
    """What a process may still take of a device's memory."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return int(free - SPARE * total)
    info = Path("/proc/meminfo")
    if not info.is_file():
        return 1 << 62  # unknown: nothing is refused
    lines = dict(line.split(":", 1) for line in info.read_text().splitlines() if ":" in line)
    return 1024 * int(lines["MemAvailable"].split()[0])
