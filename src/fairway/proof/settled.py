"""The circumstances under which floats come out the same, held still while coding.

The same program on the same processor still rounds differently with another number of threads or
a looser matrix product. What cannot be held still, the processor and the libraries, is written down
so that a refusal can name it.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

import fairway
from fairway.runtime.device import machine


@contextmanager
def settled(threads: int) -> Iterator[None]:
    """Float32 at its full precision on exactly `threads` threads; afterwards all is as before."""
    if threads < 1:
        raise ValueError(f"threads={threads}; coding needs at least 1")
    before = torch.get_num_threads(), torch.get_float32_matmul_precision()
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.set_float32_matmul_precision(before[1])


def circumstances() -> dict[str, str]:
    """What decides how floats round here and is not ours to set."""
    found = machine()
    return {
        "processor": found["processor"],
        # The instructions PyTorch chose decide more than the processor's name.
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "gpus": ", ".join(found["gpus"]),
        "system": found["system"],
        "python": found["python"],
        "torch": found["torch"],
        "numpy": np.__version__,
        "fairway": fairway.__version__,
    }


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """What differs between two circumstances, in words; empty when nothing does.

    >>> differences({"torch": "2.9", "numpy": "2.0"}, {"torch": "2.10", "numpy": "2.0"})
    'torch 2.9 there and 2.10 here'
    """
    keys = [key for key in there if there[key] != here.get(key, there[key])]
    return "; ".join(
        f"{key} {there[key] or 'none'} there and {here[key] or 'none'} here" for key in keys
    )
