"""The memory of `ngram.py` in C++ (`native/ngram.cpp`): the same floats, many times as fast."""

import ctypes
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from fairway.evaluate.learners.ngram import Memory, NgramMemory, Says, orders_of_kinds
from fairway.runtime.native import library

NAME = "ngram"
_POINTERS = {
    "memory_new": ("pointer", "array", "integer", "real", "pointer"),
    "memory_free": (None, "pointer"),
    "memory_stand_after": (None, "pointer", "array", "integer"),
    "memory_push": (None, "pointer", "integer"),
    "memory_absorb": (None, "pointer", "pointer"),
    "memory_read": (None, "pointer", "array", "integer", "integer"),
    "memory_gather": ("integer", "pointer", "array", "integer", "integer", *["array"] * 4),
    "memory_experts": ("integer", "pointer", "array", "array"),
    "memory_ahead": (None, "pointer", "integer", "array"),
    "memory_join": (None, "pointer", "array", "array", "integer", "array"),
}
_KINDS = {
    None: None,
    "pointer": ctypes.c_void_p,
    "array": ctypes.c_void_p,
    "integer": ctypes.c_int64,
    "real": ctypes.c_double,
}


def new_memory(orders: Sequence[int], fade: float, vocab_size: int) -> NgramMemory:
    """An empty memory in its fastest form that can be had here; see `native.explain`."""
    functions = library(NAME)
    if functions is None:
        return Memory(orders, fade, vocab_size)
    return CompiledMemory(_declared(functions), orders, fade)


def _declared(functions: ctypes.CDLL) -> ctypes.CDLL:
    for name, (result, *arguments) in _POINTERS.items():
        function = getattr(functions, name)
        function.restype = _KINDS[result]
        function.argtypes = [_KINDS[argument] for argument in arguments]
    return functions


class CompiledMemory:
    """`Memory`, which says what each method does."""

    def __init__(
        self,
        functions: ctypes.CDLL,
        orders: Sequence[int],
        fade: float,
        parent: "CompiledMemory | None" = None,
    ) -> None:
        self.functions, self.orders, self.fade = functions, tuple(orders), fade
        self.parent = parent  # kept: the branch reads it
        self.most = 2 * len(self.orders) + 2  # experts of one target
        lengths = np.array(self.orders, np.int32)
        self.handle = functions.memory_new(
            lengths.ctypes.data, len(lengths), fade, None if parent is None else parent.handle
        )

    def __del__(self) -> None:
        self.functions.memory_free(self.handle)

    def orders_of_kinds(self) -> list[int]:
        return orders_of_kinds(self.orders)

    def branch(self) -> "CompiledMemory":
        return CompiledMemory(self.functions, self.orders, self.fade, parent=self)

    def absorb(self, branch: "CompiledMemory") -> None:
        self.functions.memory_absorb(self.handle, branch.handle)

    def stand_after(self, history: Sequence[int]) -> None:
        tokens = np.array(history[max(0, len(history) - self.orders[-1]) :], np.int64)
        self.functions.memory_stand_after(self.handle, tokens.ctypes.data, len(tokens))

    def push(self, token: int) -> None:
        self.functions.memory_push(self.handle, token)

    def read(self, text: Tensor, num_targets: int) -> None:
        tokens = _tokens(text)
        self.functions.memory_read(self.handle, tokens.ctypes.data, len(tokens), num_targets)

    def gather(self, text: Tensor, num_targets: int) -> Says:
        tokens, most = _tokens(text), num_targets * self.most
        kinds, pointed = np.empty(most, np.int64), np.empty(most, np.int64)
        ahead, numbers = np.empty(most, np.float64), np.empty(num_targets, np.int64)
        found = self.functions.memory_gather(
            self.handle,
            tokens.ctypes.data,
            len(tokens),
            num_targets,
            *(array.ctypes.data for array in (kinds, ahead, pointed, numbers)),
        )
        return Says(numbers, kinds[:found], ahead[:found], pointed[:found])

    def suggestions(self) -> tuple[np.ndarray, np.ndarray]:
        kinds, pointed = np.empty(self.most, np.int64), np.empty(self.most, np.int64)
        found = self.functions.memory_experts(self.handle, kinds.ctypes.data, pointed.ctypes.data)
        return kinds[:found], pointed[:found]

    def ahead(self, token: int) -> np.ndarray:
        ahead = np.empty(len(self.suggestions()[0]), np.float64)
        self.functions.memory_ahead(self.handle, token, ahead.ctypes.data)
        return ahead

    def join(self, kept: np.ndarray, model: np.ndarray) -> np.ndarray:
        assert len(kept) == len(self.suggestions()[0])
        kept, model = np.ascontiguousarray(kept), np.ascontiguousarray(model)
        mixed = np.zeros_like(model)
        arrays = (kept.ctypes.data, model.ctypes.data, len(model), mixed.ctypes.data)
        self.functions.memory_join(self.handle, *arrays)
        return mixed


def _tokens(text: Tensor) -> np.ndarray:
    return np.ascontiguousarray(text.to("cpu", torch.int64).numpy())
