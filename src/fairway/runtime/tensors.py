"""Tensors by name."""

from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T")


def under(prefix: str, tensors: Mapping[str, T]) -> dict[str, T]:
    """Those whose names begin with `prefix`, without it.

    >>> under("model.", {"model.embed": 1, "optimizer.embed": 2})
    {'embed': 1}
    """
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
