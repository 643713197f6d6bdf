"""What is said of a machine before it works: where it will be slow, and what would be better."""

from collections.abc import Sequence

import torch
from torch import Tensor

from fairway.runtime.distributed import Ranks

NAME_BYTES = 96  # of a GPU's name, as ranks tell one another
# Two processes on two cores against one of two threads, measured with `pocket`.
SHARED_CPU_SPEED = 0.45


def concerns(device: torch.device, ranks: Ranks) -> list[str]:
    """What somebody should know who starts work here; nothing, where all is well.

    Every rank must ask: they compare their GPUs.
    """
    found = []
    if device.type == "cpu" and ranks.local_world_size > 1:
        found.append(
            f"{ranks.local_world_size} processes share this machine's CPU, where two were measured "
            f"at {SHARED_CPU_SPEED} times the speed of one: start one process without torchrun, "
            f"with --threads for its cores; ranks are for GPUs and for several machines"
        )
    if device.type == "cuda" and ranks.world_size > 1:
        names = ranks.all_gather(name_bytes(torch.cuda.get_device_name(device)))
        found += mixed(names_of(names))
    return found


def mixed(names: Sequence[str]) -> list[str]:
    """Of the GPUs of all ranks, by rank.

    >>> mixed(["H100", "H100"])
    []
    """
    by_name = {name: [i for i, other in enumerate(names) if other == name] for name in names}
    if len(by_name) < 2:
        return []
    told = "; ".join(
        f"{name}: rank{'s' * (len(ranks) > 1)} {', '.join(map(str, ranks))}"
        for name, ranks in by_name.items()
    )
    return [
        f"ranks have different GPUs ({told}): what they compute is right, every step waits for the "
        f"slowest, and all take float32 unless each is faster in bfloat16; for speed, start ranks "
        f"on GPUs of one kind (CUDA_VISIBLE_DEVICES)"
    ]


def name_bytes(name: str) -> Tensor:
    """(NAME_BYTES,) uint8, padded with zeros."""
    data = name.encode()[:NAME_BYTES].ljust(NAME_BYTES, b"\0")
    return torch.tensor(list(data), dtype=torch.uint8)


def names_of(rows: Tensor) -> list[str]:
    """Of (ranks, NAME_BYTES)."""
    return [bytes(row).rstrip(b"\0").decode(errors="replace") for row in rows.tolist()]
