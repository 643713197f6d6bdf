"""Which device, which precision, which seeds: what a run needs to know about the machine.

The precision is measured, not looked up: processors that list bfloat16 among their abilities can be
slower with it than with float32, and the other way round.
"""

import os
import platform
import random
import statistics
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fairway.runtime.distributed import Ranks
from fairway.runtime.strict_json import Json

WORTHWHILE = 1.15  # bfloat16 must be this much faster, for it is also less exact
PROBE_SECONDS = 0.2
FEWEST_PAIRS = 9  # of timings


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What a measurement should be printed with.

    cores    that this process may run on
    threads  that PyTorch uses on the CPU
    """

    processor: str = ""
    cores: int = 0
    threads: int = 0
    gpus: tuple[str, ...] = ()
    torch: str = ""
    python: str = ""
    system: str = ""

    def to_json(self) -> dict[str, Json]:
        return asdict(self)


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on that device. Nothing waits for a GPU: what it needs leaves from pinned memory,
    behind all that it was told before."""
    if tensor.device.type != "cpu" or device.type == "cpu":
        return tensor.to(device)
    return (tensor.pin_memory() if device.type == "cuda" else tensor).to(device, non_blocking=True)


def choose_device(requested: str | None = None, *, local_rank: int = 0) -> torch.device:
    """`cpu`, `cuda` (the GPU of this rank) or `cuda:N`; None takes a GPU where there is one."""
    num_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if requested is None:
        requested = "cuda" if num_gpus else "cpu"
    kind, _, index = requested.partition(":")
    if requested == "cpu":
        return torch.device("cpu")
    if kind != "cuda" or (index and not index.isdecimal()):
        raise ValueError(f"device {requested!r} is not one of cpu, cuda, cuda:0, cuda:1, ...")
    wanted = int(index) if index else local_rank
    if wanted >= num_gpus:
        raise ValueError(
            f"device {requested!r} means GPU {wanted}, but PyTorch {torch.__version__} sees "
            f"{num_gpus} of them; use --device cpu, fewer ranks, or a PyTorch built for CUDA"
        )
    return torch.device("cuda", wanted)


def choose_compute_dtype(
    device: torch.device, *, ranks: Ranks | None = None
) -> tuple[torch.dtype, str]:
    """The faster of bfloat16 and float32 for training on `device`, and why, for the log.

    Takes a fraction of a second: forward and backward passes of an MLP, both precisions in turn.
    What counts is the median of how many times as fast each pair was: what disturbs the machine
    hits both of a pair, or few pairs. All ranks get the same answer, bfloat16 only where all are
    for it.
    """
    ranks = ranks or Ranks()
    obstacle = no_bfloat16(device)
    speedup = 0.0 if obstacle else _bfloat16_speedup(device)
    votes = int(ranks.sum(torch.tensor(int(speedup >= WORTHWHILE))))
    measured = obstacle or f"bfloat16 is {speedup:.2f} times as fast as float32 here"
    if votes == ranks.world_size:
        return torch.bfloat16, measured
    if speedup >= WORTHWHILE:
        return torch.float32, f"{measured}, but not on {ranks.world_size - votes} other ranks"
    if obstacle:
        return torch.float32, obstacle
    return torch.float32, f"{measured}, and less than {WORTHWHILE} is not worth its rounding"


def no_bfloat16(device: torch.device) -> str:
    """Why a GPU does not compute in bfloat16 by itself; "" where it does, and for CPUs."""
    if device.type != "cuda":
        return ""
    major, minor = torch.cuda.get_device_capability(device)
    if major >= 8:
        return ""
    return (
        f"{torch.cuda.get_device_name(device)} has compute capability {major}.{minor} and so no "
        f"bfloat16, which begins at 8.0"
    )


def _bfloat16_speedup(device: torch.device) -> float:
    """How many times as fast as float32."""
    rows, width, hidden = (16384, 512, 2048) if device.type == "cuda" else (512, 256, 1024)
    speedups: list[float] = []
    # One thread: several wait for each other, and their time is not this thread's.
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for dtype in (torch.float32, torch.bfloat16):
            _mlp_seconds(device, dtype, rows, width, hidden)  # the first of each sets things up
        until = time.perf_counter() + PROBE_SECONDS
        while time.perf_counter() < until or len(speedups) < FEWEST_PAIRS:
            full = _mlp_seconds(device, torch.float32, rows, width, hidden)
            speedups.append(full / _mlp_seconds(device, torch.bfloat16, rows, width, hidden))
    finally:
        torch.set_num_threads(num_threads)
    return statistics.median(speedups)


def seed_everything(seed: int) -> None:
    """The same random numbers in every run: Python's, NumPy's and PyTorch's on every device."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def machine() -> Machine:
    """The machine that this process runs on."""
    return Machine(
        processor=_processor_name(),
        cores=_num_cores(),
        threads=torch.get_num_threads(),
        gpus=tuple(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())),
        torch=str(torch.__version__),
        python=platform.python_version(),
        system=f"{platform.system()} {platform.machine()}",
    )


def _mlp_seconds(
    device: torch.device, dtype: torch.dtype, rows: int, width: int, hidden: int
) -> float:
    """Seconds of one forward and backward pass, the casting of float32 weights included."""
    # Random numbers, not constants: GPUs run measurably faster on tensors that compress (#670).
    # From a source of their own, or the run after this measurement could not be repeated.
    source = torch.Generator(device).manual_seed(0)
    x = torch.randn(rows, width, device=device, generator=source).to(dtype)
    up = torch.randn(hidden, width, device=device, generator=source).requires_grad_()
    down = torch.randn(width, hidden, device=device, generator=source).requires_grad_()
    _wait(device)
    # A CPU's own seconds: those that other processes took from this thread do not count.
    now = time.perf_counter if device.type == "cuda" else time.thread_time
    start = now()
    y = F.linear(F.relu(F.linear(x, up.to(dtype))), down.to(dtype))
    y.backward(x)
    _wait(device)
    return now() - start


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _processor_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _num_cores() -> int:
    """Cores this process may run on, which in a container are fewer than there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
