"""Where a run happens: handed to every stage, decided once."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch

from fairway.runtime.compiler_cache import make_usable
from fairway.runtime.device import choose_compute_dtype, choose_device, no_bfloat16
from fairway.runtime.distributed import Ranks
from fairway.runtime.patience import PEER_SECONDS
from fairway.runtime.progress import Progress, silent
from fairway.runtime.run_log import RunLog
from fairway.runtime.stopping import Stop, listening
from fairway.runtime.suitability import concerns

LOG = "train.log"


@dataclass(frozen=True)
class Runtime:
    """compiled  training runs through `torch.compile`: minutes once, for every step thereafter
    obstacle  why it does not although it was to; "" where nothing stood in the way
    stop      what the signals said; whoever has steps looks at it between them
    """

    device: torch.device
    compute_dtype: torch.dtype = torch.float32
    ranks: Ranks = field(default_factory=Ranks)
    log: RunLog = field(default_factory=RunLog)
    compiled: bool = False
    obstacle: str = ""
    stop: Stop = field(default_factory=Stop)

    def measured(self, compiled: bool | None = None, dtype: str | None = None) -> "Runtime":
        """With the number type that is fastest here; the log says which and why.

        compiled  None: on GPUs, where the kernels that it saves are most of a small model's step;
                  for CPUs see `pipeline/compiling.py`
        dtype     "float32" or "bfloat16"; None measures
        """
        if dtype is None:
            chosen, reason = choose_compute_dtype(self.device, ranks=self.ranks)
        else:
            chosen, reason = getattr(torch, dtype), "as it was asked for"
            if chosen == torch.bfloat16 and (obstacle := no_bfloat16(self.device)):
                raise ValueError(f"{obstacle}; use --compute-dtype float32, or leave it out")
        compiled = self.device.type == "cuda" if compiled is None else compiled
        return self.settled(chosen, compiled, reason)

    def settled(self, dtype: torch.dtype, compiled: bool, reason: str) -> "Runtime":
        name, through = str(dtype).removeprefix("torch."), " through torch.compile" * compiled
        self.log.say(f"training in {name} on {self.device}{through}: {reason}")
        return replace(self, compute_dtype=dtype, compiled=compiled)

    def alone(self) -> "Runtime | None":
        """The first process without its peers, who need not wait for it; None on all others."""
        self.ranks.stop()
        return replace(self, ranks=Ranks()) if self.ranks.is_main else None


@contextmanager
def runtime_for(
    *,
    device: str | None = None,
    threads: int | None = None,
    quiet: bool = False,
    progress: Progress = silent,
    peer_seconds: float = PEER_SECONDS,
) -> Iterator[Runtime]:
    """The device, the peers that torchrun started, if it did, ears for signals, and a log that has
    no file yet.

    device    cpu, cuda or cuda:N; None takes a GPU where there is one
    threads   of PyTorch on the CPU; None leaves them as they are
    quiet     nothing on the screen
    progress  called with all that the log is told
    peer_seconds  a rank that is silent for so long is lost, and the others end
    """
    if threads is not None:
        if threads < 1:
            raise ValueError(f"threads={threads}: one is the least")
        torch.set_num_threads(threads)
    ranks = Ranks.from_env()
    chosen = choose_device(device, local_rank=ranks.local_rank)
    with (
        RunLog(quiet=quiet or not ranks.is_main, progress=progress) as log,
        listening() as stop,
        ranks.running(chosen, peer_seconds=peer_seconds, say=log.say if ranks.is_main else None),
    ):
        for concern in filter(None, (*concerns(chosen, ranks), make_usable())):
            log.say(concern)
        yield Runtime(chosen, ranks=ranks, log=log, stop=stop)
