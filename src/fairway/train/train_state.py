"""A stopped run in one file, from which it continues as if it had not been stopped.

Weights, optimizer state, random state and numbers in a `runtime/tensor_file.py`, which knows when
it is damaged. When one is written, and which of two is read, is in `checkpoints.py`; the file a
model is shipped in is another one (`artifact/`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fairway.runtime.tensor_file import read_tensors, under, write_tensors
from fairway.train.param_groups import Optimizers

FORMAT = 2


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """tensors  named `model.*`, `optimizer.*`, `random.*`, `extra.*`
    numbers  `step`, the steps finished, and what the caller adds: any JSON
    """

    tensors: Mapping[str, Tensor]
    numbers: Mapping[str, Any]

    @property
    def step(self) -> int:
        return self.numbers["step"]

    @property
    def extra(self) -> dict[str, Tensor]:
        """The caller's own tensors, such as running averages."""
        return under("extra.", self.tensors)


def checkpoint_state(
    model: nn.Module,
    optimizers: Optimizers,
    *,
    step: int,
    extra: Mapping[str, Tensor] | None = None,
    plain: Callable[[str], str] = str,
    **numbers: Any,
) -> Checkpoint:
    """A copy of all that the next step depends on, except the place in the batches.

    extra    tensors of the caller: averages, say
    plain    gives a parameter the name that it has in an untouched model, where something was
             attached to this one
    numbers  JSON of the caller: `spent_seconds` of the clock, where the batches stand
    """
    tensors = {f"model.{plain(name)}": tensor for name, tensor in _model_tensors(model).items()}
    state = optimizers.state_dict()
    tensors.update((f"optimizer.{name}", tensor) for name, tensor in state.items())
    tensors.update((f"extra.{name}", tensor) for name, tensor in (extra or {}).items())
    tensors["random.cpu"] = torch.get_rng_state()
    if next(model.parameters()).device.type == "cuda":
        tensors["random.cuda"] = torch.cuda.get_rng_state()
    copies = {
        name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()
    }
    return Checkpoint(tensors=copies, numbers={"format": FORMAT, "step": step, **numbers})


def restore(checkpoint: Checkpoint, model: nn.Module, optimizers: Optimizers) -> None:
    """Put a checkpoint back into a model and optimizers built from the same config.

    Continue with `training_steps(first_step=checkpoint.step, ...)` and batches from where they
    stood; milestones that were passed are reached again before the next step.
    """
    restore_model(checkpoint, model)
    optimizers.load_state_dict(under("optimizer.", checkpoint.tensors))
    torch.set_rng_state(checkpoint.tensors["random.cpu"])
    if "random.cuda" in checkpoint.tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(checkpoint.tensors["random.cuda"])


def restore_model(checkpoint: Checkpoint, model: nn.Module) -> None:
    """The weights alone, as the last step left them."""
    saved, ours = under("model.", checkpoint.tensors), _model_tensors(model)
    if saved.keys() != ours.keys():
        odd = ", ".join(sorted(saved.keys() ^ ours.keys()))
        raise ValueError(f"checkpoint and model differ in {odd}; resume with the recipe it is from")
    for name, tensor in ours.items():
        if saved[name].shape != tensor.shape:
            raise ValueError(
                f"{name} is {tuple(saved[name].shape)} in the checkpoint and "
                f"{tuple(tensor.shape)} in the model; resume with the recipe it is from"
            )
    with torch.no_grad():
        for name, tensor in ours.items():
            tensor.copy_(saved[name])


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write the file in one move: whoever finds it finds all of it.

    Raises OSError (a full disk, say) with the old file untouched and the partial one removed.
    """
    write_tensors(path, checkpoint.tensors, checkpoint.numbers)


def read_train_state(path: Path) -> Checkpoint:
    """Raises ValueError for any file but the whole, unchanged one that `save_checkpoint` wrote."""
    tensors, numbers = read_tensors(path, "a checkpoint of training")
    if numbers.get("format") != FORMAT:
        raise ValueError(
            f"{path} has checkpoint format {numbers.get('format')}, this version reads {FORMAT}; "
            f"give the file `fairway train` wrote, or start anew"
        )
    return Checkpoint(tensors=tensors, numbers=numbers)


def _model_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and lasting buffers, each once (tied weights have two names, one storage)."""
    lasting = model.state_dict().keys()
    buffers = {name: tensor for name, tensor in model.named_buffers() if name in lasting}
    return {**dict(model.named_parameters()), **buffers}
