"""A model of shapes alone, for whoever counts, names or is about to fill its tensors."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from fairway.model.gpt import GPT
from fairway.model.model_config import ModelConfig

_DRAWS = (Tensor.normal_, nn.init.normal_, nn.init.uniform_, nn.init.kaiming_uniform_)


class _NothingDrawn(TorchFunctionMode):
    """Random initial weights are left out: on the meta device PyTorch would load its whole
    compiler to trace them, more than a second of every command's start."""

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func in _DRAWS:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def blank(config: ModelConfig) -> GPT:
    """The model on the meta device: shapes without memory."""
    with torch.device("meta"), _NothingDrawn():
        return GPT(config)


def num_params(config: ModelConfig) -> int:
    """Parameters that ship, without allocating them."""
    return sum(math.prod(t.shape) for t in blank(config).shipped_state_dict().values())
