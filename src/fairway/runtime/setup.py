"""Where a run happens: handed to every stage, decided once."""

from dataclasses import dataclass

import torch

from fairway.runtime.device import choose_compute_dtype
from fairway.runtime.distributed import Ranks
from fairway.runtime.run_log import RunLog


@dataclass(frozen=True)
class Runtime:
    """compiled  training runs through `torch.compile`: minutes once, for every step thereafter"""

    device: torch.device
    compute_dtype: torch.dtype
    ranks: Ranks
    log: RunLog
    compiled: bool = False


def set_up(
    log: RunLog, device: torch.device, ranks: Ranks | None = None, compiled: bool | None = None
) -> Runtime:
    """Choose the number type that is fastest here; says which and why.

    compiled  None: on GPUs, where the kernels that it saves are most of a small model's step
    """
    ranks = ranks or Ranks()
    dtype, reason = choose_compute_dtype(device, ranks=ranks)
    compiled = device.type == "cuda" if compiled is None else compiled
    through = " through torch.compile" if compiled else ""
    log.say(f"training in {str(dtype).removeprefix('torch.')} on {device}{through}: {reason}")
    return Runtime(device, dtype, ranks, log, compiled)
