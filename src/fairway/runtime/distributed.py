"""This process among its peers: who it is, and the few collectives the project needs.

`Ranks` is built once where the program starts and then passed; nothing else reads the variables
torchrun sets, but for `launched.py`, where PyTorch is not to be imported. On one process every
collective is the identity, so callers never ask how many ranks there are. What is sent, and when,
is decided by the callers: `train/loop.py`, `train/muon.py`.
"""

# torch names its foreach functions as if they were private.
# pyright: reportPrivateImportUsage=false

import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.elastic.multiprocessing.errors import record

from fairway.runtime.meeting import agreed_store
from fairway.runtime.meter import Meter
from fairway.runtime.patience import PEER_SECONDS
from fairway.runtime.watchdog import Say, Store, Watchdog

# What PyTorch before 2.13 knows by another name.
gather_into = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
BUCKET_BYTES = 32 * 2**20  # one message for many small tensors, few messages for large ones
ALONE_SECONDS = 86400.0  # for which a rank may work while its peers wait: the watchdog judges them
GRACE_SECONDS = 1.5  # torchrun calls the rank that ends first the cause


class RankLost(RuntimeError):
    """A collective failed, which nearly always means that another rank has died."""


def environment_alone() -> dict[str, str]:
    """This process's environment for a child that is to be on its own, whoever started us."""
    ours = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_", "TORCHELASTIC_", "GROUP_", "ROLE_")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


@dataclass(frozen=True)
class Ranks:
    """One process among `world_size`; `local_rank` counts within its machine, which has
    `local_world_size` of them.

    Every collective must be entered by all ranks, in the same order, with the same shapes. CPU
    tensors travel by gloo even where the device is a GPU, so agreeing on a number never waits for
    the GPU.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1
    watchdog: Watchdog = field(default_factory=Watchdog, compare=False, repr=False)

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world_size or self.local_rank < 0:
            raise ValueError(
                f"rank {self.rank} (local {self.local_rank}) of {self.world_size} cannot be; start "
                f"several processes with `torchrun --nproc-per-node N -m fairway ...`"
            )

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ) -> "Ranks":
        """torchrun sets all three variables; a plain `python` run sets none."""
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
        missing = [name for name in names if name not in env]
        if len(missing) == len(names):
            return cls()
        if missing:
            raise ValueError(
                f"{', '.join(missing)} not set while others of {', '.join(names)} are; unset them "
                f"for one process, or start with `torchrun --nproc-per-node N -m fairway ...`"
            )
        rank, world_size, local_rank = (int(env[name]) for name in names)
        return cls(rank, world_size, local_rank, int(env.get("LOCAL_WORLD_SIZE", 1)))

    @property
    def meter(self) -> Meter:
        """Where this rank stands among the collectives, and how long it has waited in them."""
        return self.watchdog.meter

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    @contextmanager
    def running(
        self,
        device: torch.device,
        *,
        init_method: str = "env://",
        timeout_seconds: float = 600.0,
        peer_seconds: float = PEER_SECONDS,
        say: Say | None = None,
    ) -> Iterator["Ranks"]:
        """`start` on entry, `stop` on a clean exit.

        After an error the peers are told of it, and nothing is torn down: they are waiting
        elsewhere and would not answer.
        """
        self.start(
            device,
            init_method=init_method,
            timeout_seconds=timeout_seconds,
            peer_seconds=peer_seconds,
            say=say,
        )
        try:
            yield self
        except RankLost:
            raise
        except BaseException as error:
            self.watchdog.tell(error)
            raise
        self.stop()

    def start(
        self,
        device: torch.device,
        *,
        init_method: str = "env://",
        timeout_seconds: float = 600.0,
        peer_seconds: float = PEER_SECONDS,
        say: Say | None = None,
    ) -> None:
        """Meet the peers: gloo on CPUs, NCCL for CUDA tensors. Nothing to do on one process.

        timeout_seconds  of meeting, and of a collective between GPUs, which no lawful work outlasts
        peer_seconds  a rank that is silent for so long is lost, and this process ends
        say           takes what the watchdog has for the run's log
        """
        if self.world_size == 1:
            return
        if device.type == "cuda":
            torch.cuda.set_device(device)
        timeout = timedelta(seconds=timeout_seconds)
        with self._peers_expected("meet", self.meter.collective(device)):
            found = dist.rendezvous(init_method, self.rank, self.world_size, timeout=timeout)
            store = agreed_store(next(found)[0], self.rank, self.world_size, timeout_seconds)
            dist.init_process_group(
                "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
                store=store,
                rank=self.rank,
                world_size=self.world_size,
                timeout=timeout,
            )
            # Where a rank works alone, the others wait in a collective of CPU tensors. NCCL keeps
            # its limit: it is the only one to notice that messages between GPUs are lost.
            group = dist.distributed_c10d._get_default_group()
            gloo = group._get_backend(torch.device("cpu"))
            gloo._set_default_timeout(timedelta(seconds=ALONE_SECONDS))
        store = cast(Store, store)
        self.watchdog.start(store, self.rank, self.world_size, peer_seconds=peer_seconds, say=say)

    def stop(self) -> None:
        """Part from the peers, once all of them have come this far; a second time, do nothing."""
        if self.world_size == 1 or not dist.is_initialized():
            return
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()  # a collective under way would be aborted with the group
        self.barrier()
        self.watchdog.stop()
        dist.destroy_process_group()

    @contextmanager
    def lockstep(self) -> Iterator[None]:
        """Where all ranks do the same work between two collectives; see `Meter`."""
        with self.meter.lockstep():
            yield

    def sum(self, value: Tensor) -> Tensor:
        """The total over all ranks, on every rank."""
        if self.world_size == 1:
            return value
        total = value.clone()
        with self._peers_expected("sum", self.meter.collective(total.device)):
            dist.all_reduce(total)
        return total

    def sum_(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its total over all ranks, in place, many per message."""
        if self.world_size == 1:
            return
        for bucket in _buckets(tensors):
            flat = torch.cat([tensor.reshape(-1) for tensor in bucket])
            with self._peers_expected("sum", self.meter.collective(flat.device)):
                dist.all_reduce(flat)
            parts = flat.split([tensor.numel() for tensor in bucket])
            shaped = [part.view(tensor.shape) for part, tensor in zip(parts, bucket, strict=True)]
            torch._foreach_copy_(bucket, shaped)

    def mean_(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its mean over all ranks, in place."""
        if self.world_size == 1:
            return
        self.sum_(tensors)
        torch._foreach_div_(list(tensors), float(self.world_size))

    def all_gather(self, value: Tensor) -> Tensor:
        """(world_size, *shape): every rank's value, in the order of ranks, on every rank."""
        return self.start_gather(value).wait()

    def start_gather(self, value: Tensor) -> "Pending":
        """`all_gather`, of which the caller waits for the end. `value` must stay as it is until."""
        if self.world_size == 1:
            return Pending(self, value[None])
        gathered = value.new_empty(self.world_size, *value.shape)
        with self._peers_expected("gather", self.meter.launching()):
            work = gather_into(gathered.view(-1), value.reshape(-1), async_op=True)
        return Pending(self, gathered, work)

    def start_scatter(self, value: Tensor, sizes: Sequence[int]) -> "Pending":
        """Send each rank its part of `value` (N,), as long as `sizes` says, which all ranks agree
        on; to wait for: (world_size, sizes[rank]), every rank's part for this one. Not on one."""
        received = value.new_empty(self.world_size, sizes[self.rank])
        with self._peers_expected("scatter", self.meter.launching()):
            work = dist.all_to_all_single(
                received.view(-1),
                value,
                [sizes[self.rank]] * self.world_size,
                list(sizes),
                async_op=True,
            )
        return Pending(self, received, work)

    def broadcast(self, value: Tensor, source: int = 0) -> Tensor:
        """Overwrite `value` with that of rank `source`, and return it."""
        if self.world_size > 1:
            with self._peers_expected("broadcast", self.meter.collective(value.device)):
                dist.broadcast(value, source)
        return value

    def barrier(self) -> None:
        """Return once every rank has called this."""
        self.sum(torch.zeros(()))

    @contextmanager
    def _peers_expected(self, verb: str, metered: AbstractContextManager[None]) -> Iterator[None]:
        try:
            with metered:
                yield
        except RuntimeError as error:
            lost = self.watchdog.who_is_lost() or (
                f"another rank has most likely failed, and its traceback says why ({error})"
            )
            raise RankLost(
                f"rank {self.rank} of {self.world_size} could not {verb} with its peers: {lost}"
            ) from error


@dataclass
class Pending:
    """A collective under way, of which `result` comes."""

    ranks: Ranks
    result: Tensor
    work: dist.Work | None = None

    def wait(self) -> Tensor:
        """The result: on a GPU, what is launched from now on finds it; the host goes on at once."""
        ranks, device = self.ranks, self.result.device
        if self.work is not None:
            with ranks._peers_expected("exchange data", ranks.meter.waiting(device)):
                self.work.wait()
            self.work = None
        return self.result


def supervised(main: Callable[[], int], ranks: Ranks) -> int:
    """Run `main`, which returns an exit status, so that several ranks end as one.

    A rank that dies ends the whole run and shows its traceback. torchrun does neither by itself:
    its summary names a rank, and holds a traceback only if the worker recorded one. On several
    ranks this does not return: the interpreter's own way out can wait for peers that will never
    answer, and aborts where a thread of the process group outlives the group (torch 2.13).
    """
    if ranks.world_size == 1:
        return main()

    def watched() -> int:
        try:
            return main()
        except RankLost as error:
            # The traceback worth reading is the other rank's; let that one be found first.
            print(error, file=sys.stderr, flush=True)
            time.sleep(GRACE_SECONDS)
            return 1

    status = 1
    try:
        status = record(watched)() or 0
    except Exception:
        print(
            f"rank {ranks.rank} of {ranks.world_size} failed:\n{traceback.format_exc()}",
            file=sys.stderr,
        )
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Neighbours of one dtype and device, up to `BUCKET_BYTES` together."""
    bucket: list[Tensor] = []
    size = 0
    for tensor in tensors:
        kind, num_bytes = (tensor.dtype, tensor.device), tensor.numel() * tensor.element_size()
        full = size + num_bytes > BUCKET_BYTES
        if bucket and (full or kind != (bucket[0].dtype, bucket[0].device)):
            yield bucket
            bucket, size = [], 0
        bucket.append(tensor)
        size += num_bytes
    if bucket:
        yield bucket
