"""Computing the same floats as another run did: what is fixed, what is checked, what is recorded.

The same program on the same processor rounds differently with another number of threads or a looser
matrix product; another processor may round differently whatever one does. One flipped slice of the
coder's interval and everything after it is noise. So what can be fixed is (`reproducible`), sums
over the tokens turn noise into a refusal (`Checkpoints`), and what cannot be fixed is recorded for
the refusal to name (`circumstances`).
"""

import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import numpy as np
import torch
from torch import Tensor

from fairway.model.decode_step import NAME as DECODE
from fairway.runtime.device import machine
from fairway.runtime.kernels_cpu import NAME as TRAINING
from fairway.runtime.native import explain, identity, untuned
from fairway.runtime.version import VERSION

PLAIN = "plain"
FEW_THREADS, THREADS_PER_CORE = 16, 4  # that are worth a try


class NotReproducible(ValueError):
    """This machine computes other probabilities than the one that encoded."""


class Enough(Exception):
    """Decoding stops here, though there is more."""


class Checkpoints:
    """A running crc32 over tokens in coding order, noted whenever `every` more have come.

    expected  what the encoder noted; None while encoding
    enough    asked at each checkpoint, with the tokens so far; true raises `Enough`
    """

    def __init__(
        self,
        every: int,
        expected: Sequence[int] | None = None,
        enough: Callable[[int], bool] = lambda num_tokens: False,
    ) -> None:
        self.every, self.expected, self.enough = every, expected, enough
        self.num_tokens, self.crc = 0, 0
        self.noted: list[int] = []
        self.due = every

    def add(self, tokens: Tensor) -> None:
        """The next tokens, (n,) int64; all rows of one step come together."""
        self.crc = zlib.crc32(tokens.numpy().astype("<u4").tobytes(), self.crc)
        self.num_tokens += len(tokens)
        if self.num_tokens >= self.due:
            self.due = self.num_tokens + self.every
            self._note()
            if self.enough(self.num_tokens):
                raise Enough

    def state(self) -> Tensor:
        """What noting goes on with, (n,) int64."""
        return torch.tensor([self.num_tokens, self.crc, self.due, *self.noted])

    def load_state(self, state: Tensor) -> None:
        self.num_tokens, self.crc, self.due, *self.noted = state.tolist()

    def finish(self) -> tuple[int, ...]:
        """One more at the end; returns all of them."""
        self._note()
        if self.expected is not None and len(self.expected) != len(self.noted):
            raise NotReproducible(
                f"{len(self.noted)} checkpoints passed, but the file holds {len(self.expected)}: "
                "its plan is not the one it was coded with"
            )
        return tuple(self.noted)

    def _note(self) -> None:
        number = len(self.noted)
        self.noted.append(self.crc)
        if self.expected is None:
            return
        if number >= len(self.expected) or self.expected[number] != self.crc:
            raise NotReproducible(
                f"checkpoint {number + 1} of {len(self.expected)}, after {self.num_tokens:,} "
                "tokens, does not match: this machine computes other probabilities than the one "
                "that encoded"
            )


@contextmanager
def reproducible(threads: int, there: Mapping[str, str] | None = None) -> Iterator[None]:
    """Float32 at its full precision on exactly `threads` threads; afterwards all is as before.

    there  circumstances of an encoder in native arithmetic: where it had no kernels of ours, none
           are used; None: whatever is fastest
    """
    if threads < 1:
        raise ValueError(f"threads={threads}; coding needs at least 1")
    cores = os.cpu_count() or 1
    if threads > max(FEW_THREADS, THREADS_PER_CORE * cores):
        raise NotReproducible(
            f"{threads:,} threads computed it, which would get nowhere on the {cores} cores "
            f"of this machine; use one with more cores"
        )
    kernels = nullcontext() if there is None else _kernels_as(there)
    before = torch.get_num_threads(), torch.get_float32_matmul_precision()
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision("highest")
    try:
        with kernels:
            yield
    finally:
        torch.set_num_threads(before[0])
        torch.set_float32_matmul_precision(before[1])


def _kernels_as(there: Mapping[str, str]) -> AbstractContextManager[None]:
    """An encoder's kernels of ours, or none; files that say nothing are older than them."""
    wanted = there.get("kernels", PLAIN)
    if wanted == PLAIN:
        return untuned()
    if _kernels() == PLAIN:
        raise NotReproducible(
            f"it was encoded with kernels in C++ ({wanted}), which this machine cannot compile "
            f"({explain(DECODE, TRAINING, tuned=True)}); install a C++ compiler, or encode with "
            "arithmetic='settled', which any machine decodes"
        )
    return nullcontext()


def _kernels() -> str:
    """What tells our compiled decode step and derivatives from those of other compilers."""
    found = [identity(name, tuned=True)[:8] for name in (DECODE, TRAINING)]
    return f"C++ {' '.join(one or PLAIN for one in found)}" if any(found) else PLAIN


def circumstances() -> dict[str, str]:
    """What decides how floats round here and is not ours to set."""
    found = machine()
    return {
        "processor": found.processor,
        # The instructions PyTorch chose decide more than the processor's name.
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "gpus": ", ".join(found.gpus),
        "system": found.system,
        "python": found.python,
        "torch": found.torch,
        "numpy": np.__version__,
        "fairway": VERSION,
        "kernels": _kernels(),
    }


def differences(there: Mapping[str, str], here: Mapping[str, str]) -> str:
    """What differs between two circumstances, in words; empty when nothing does.

    >>> differences({"torch": "2.9", "numpy": "2.0"}, {"torch": "2.10", "numpy": "2.0"})
    'torch 2.9 there and 2.10 here'
    """
    keys = [key for key in there if there[key] != here.get(key, there[key])]
    if there.get("kernels") == PLAIN and "kernels" in keys:
        keys.remove("kernels")  # none are used where the encoder had none
    return "; ".join(
        f"{key} {there[key] or 'none'} there and {here[key] or 'none'} here" for key in keys
    )
