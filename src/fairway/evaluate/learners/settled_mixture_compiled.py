"""A row of the settled mixture in C++ (`native/ngram.cpp`): the numbers of `SettledRow`."""

import ctypes

import numpy as np
from numpy.typing import NDArray

from fairway.coding.settled import ONE
from fairway.evaluate.learners.gates import FLOOR
from fairway.evaluate.learners.mixture import RowState
from fairway.evaluate.learners.ngram_compiled import CompiledMemory
from fairway.evaluate.learners.settled_row import SURPRISING, SettledRow

Ints = NDArray[np.int64]


class _Gates(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("below", "above")),
        *((name, ctypes.c_double) for name in ("memory", "least")),
    ]


class _Settling(ctypes.Structure):
    _fields_ = [
        ("surprising", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("num_surprising", "vocab_size")),
        ("one", ctypes.c_double),
    ]


def new_row(state: RowState) -> SettledRow:
    """In its fastest form that can be had here."""
    return CompiledRow(state) if isinstance(state.memory, CompiledMemory) else SettledRow(state)


class CompiledRow(SettledRow):
    """`SettledRow`, which says what each method does."""

    memory: CompiledMemory

    def settle(self, model: Ints) -> Ints:
        model, chosen = np.ascontiguousarray(model), np.empty(self.memory.most, np.int64)
        self.model, ends = np.empty(len(model)), np.empty(len(model), np.int64)
        arrays = (model, self.model, chosen, ends)
        number = self._call("look", self._gates(), self._settling(len(model)), *arrays)
        self.chosen = chosen[:number]
        return ends

    def learn(self, token: int) -> None:
        probability, number = ctypes.c_double(self.model[token]), ctypes.c_int64(len(self.chosen))
        self._call("learn", self._gates(), self.chosen, number, probability, ctypes.c_int64(token))

    def read(self, model: Ints, tokens: Ints) -> Ints:
        model, slices = np.ascontiguousarray(model), np.empty((3, len(tokens)), np.int64)
        given = (self._gates(), self._settling(model.shape[1]), model)
        self._call("read", *given, tokens, ctypes.c_int64(len(tokens)), *slices)
        return slices

    def _call(self, name: str, *arguments: object) -> int:
        function = getattr(self.memory.functions, f"mixture_{name}")
        function.restype = ctypes.c_int64 if name == "look" else None
        return function(ctypes.c_void_p(self.memory.handle), *map(_argument, arguments))

    def _gates(self) -> _Gates:
        gates = self.gates
        below, above = gates.below.buffer_info()[0], gates.above.buffer_info()[0]
        return _Gates(below, above, gates.memory, FLOOR)

    @staticmethod
    def _settling(vocab_size: int) -> _Settling:
        return _Settling(SURPRISING.ctypes.data, len(SURPRISING), vocab_size, ONE)


def _argument(value: object) -> object:
    if isinstance(value, np.ndarray):
        return ctypes.c_void_p(value.ctypes.data)
    return ctypes.byref(value) if isinstance(value, ctypes.Structure) else value
