"""The memory of `hints.py` in C++ (`native/hints.cpp`): the same hints, many times as fast.

A context takes 20 bytes and a pair of context and token 12, in tables that are at most three
quarters full: 2.1 GB for the 47.9 million targets of the challenge's text, where nearly all
contexts of 15 tokens are new, and half as much again while a table grows.
"""

import ctypes
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from fairway.evaluate.learners.hints import (
    COEFFICIENTS,
    HintMemory,
    Hints,
    PlainHintMemory,
    as_array,
)
from fairway.runtime.native import library

NAME = "hints"
_FUNCTIONS = {
    "hints_new": (ctypes.c_void_p, "array", "integer", "pointer"),
    "hints_free": (None, "pointer"),
    "hints_absorb": (None, "pointer", "pointer"),
    "hints_stand_after": (None, "pointer", "array", "integer"),
    "hints_place": (ctypes.c_int64, "pointer", "array"),
    "hints_expected": (None, "pointer", "array", "array"),
    "hints_read": (None, "pointer", "array", "integer", "array", "array"),
    "hints_bytes": (ctypes.c_int64, "pointer"),
}
_KINDS = {"pointer": ctypes.c_void_p, "array": ctypes.c_void_p, "integer": ctypes.c_int64}


def new_hint_memory(length: int) -> HintMemory:
    """An empty memory in its fastest form that can be had here; see `native.explain`."""
    functions = library(NAME)
    if functions is None:
        return PlainHintMemory(length)
    for name, (result, *arguments) in _FUNCTIONS.items():
        function = getattr(functions, name)
        function.restype = result
        function.argtypes = [_KINDS[argument] for argument in arguments]
    return CompiledHintMemory(functions, length)


class CompiledHintMemory:
    """`HintMemory`, which says what each method does."""

    def __init__(
        self, functions: ctypes.CDLL, length: int, parent: "CompiledHintMemory | None" = None
    ) -> None:
        self.functions, self.length = functions, length
        self.parent = parent  # kept: the branch reads it
        coefficients = np.array(COEFFICIENTS[:length], np.uint64)
        above = None if parent is None else parent.handle
        self.handle = functions.hints_new(coefficients.ctypes.data, length, above)

    def __del__(self) -> None:
        self.functions.hints_free(self.handle)

    @property
    def num_bytes(self) -> int:
        """What its own tables take."""
        return self.functions.hints_bytes(self.handle)

    def branch(self) -> "CompiledHintMemory":
        return CompiledHintMemory(self.functions, self.length, self)

    def absorb(self, branch: "CompiledHintMemory") -> None:
        self.functions.hints_absorb(self.handle, branch.handle)

    def stand_after(self, place: Sequence[int]) -> None:
        tokens = np.array(place, np.int64)
        self.functions.hints_stand_after(self.handle, tokens.ctypes.data, len(tokens))

    def place(self) -> list[int]:
        tokens = np.empty(self.length, np.int64)
        found = self.functions.hints_place(self.handle, tokens.ctypes.data)
        return tokens[:found].tolist()

    def expected(self) -> tuple[int, float]:
        token, confidence = np.empty(1, np.int64), np.empty(1, np.float64)
        self.functions.hints_expected(self.handle, token.ctypes.data, confidence.ctypes.data)
        return int(token[0]), float(confidence[0])

    def push(self, token: int) -> None:
        self.read(torch.tensor([token]))

    def read(self, tokens: Tensor) -> Hints:
        array = as_array(tokens)
        expected, confidence = np.empty(len(array), np.int64), np.empty(len(array), np.float64)
        found = expected.ctypes.data, confidence.ctypes.data
        self.functions.hints_read(self.handle, array.ctypes.data, len(array), *found)
        return Hints(torch.from_numpy(expected), torch.from_numpy(confidence))
