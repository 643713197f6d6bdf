"""The gradients of a step, summed over the ranks while there is still work to do.

Gradients travel in buckets. One is sent as soon as its last gradient is there, while backward goes
on to those before it; all ranks send the same ones in the same order. A gradient with an owner (the
optimizer names them: Muon's ranks share its work) is summed there alone, which halves what is sent;
of all others each rank sums a part, and the parts are gathered.

Every sum begins with rank 0 and goes up, wherever and whenever it is made: a step of one
micro-batch on each of N ranks has the bits of a step of N micro-batches on one.
"""

# torch names its foreach functions as if they were private.
# pyright: reportPrivateImportUsage=false

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fairway.runtime.distributed import Pending, Ranks, buckets

BUCKET_BYTES = 8 * 2**20  # of gradients that nobody owns: few messages, and the first one soon


class Summed(NamedTuple):
    """loss       () over all ranks
    norms      (P,) of all gradients, in the order of the parameters
    gradients  those that this rank has: of what it owns, and of what nobody owns
    """

    loss: Tensor
    norms: Tensor
    gradients: list[Tensor]


@dataclass
class Bucket:
    """One message of gradients of one type.

    names    in the order in which they are sent
    owned    whether their sums stay with their owners
    sizes    numbers that each rank sums
    missing  names whose gradients are not there yet
    """

    names: list[str]
    owned: bool
    sizes: list[int]
    missing: set[str] = field(default_factory=set)


class GradientExchange:
    """Use as a context manager, around all steps of a training. On one rank it sends nothing.

    parameters  all that learn, by name
    owners      rank by name, for gradients that only one rank needs
    overlapped  False: everything is sent after backward, one after the other, with the same sums
    """

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        owners: Mapping[str, int],
        ranks: Ranks,
        *,
        overlapped: bool = True,
    ) -> None:
        self.parameters, self.owners, self.ranks = dict(parameters), dict(owners), ranks
        self.overlapped = overlapped
        self.buckets = (
            [] if ranks.world_size == 1 else make_buckets(parameters, owners, ranks.world_size)
        )
        self.sent: list[Pending] = []  # of the first buckets
        self._backward_is_last = False
        self._hooks = []
        # Each norm is told by one rank: its owner, or the first.
        self.told = [n for n in self.parameters if self.owners.get(n, 0) == ranks.rank]
        places = [1 + i for i, name in enumerate(self.parameters) if name in set(self.told)]
        device = next(iter(self.parameters.values())).device
        self._places = torch.tensor(places, dtype=torch.long, device=device)

    def __enter__(self) -> "GradientExchange":
        if self.overlapped and self.buckets:
            self._hooks = [
                self.parameters[name].register_post_accumulate_grad_hook(
                    self._arrival(name, bucket)
                )
                for bucket in self.buckets
                for name in bucket.names
            ]
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    @contextmanager
    def sending(self) -> Iterator[None]:
        """Around the last backward pass of a step: what is complete may leave."""
        for bucket in self.buckets:
            bucket.missing = set(bucket.names)
        self._backward_is_last = True
        try:
            yield
        finally:
            self._backward_is_last = False

    def complete(self) -> list[Tensor]:
        """This rank's gradients before anything is sent, zeros where it has none."""
        for parameter in self.parameters.values():
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        return [
            parameter.grad for parameter in self.parameters.values() if parameter.grad is not None
        ]

    def finish(self, loss: Tensor) -> Summed:
        """Send what is left and wait for the sums.

        They are in `.grad` from now on, which is None where another rank is the owner.

        loss  () this rank's part
        """
        if self.ranks.world_size == 1:
            gradients = self.complete()
            return Summed(loss, torch.stack(torch._foreach_norm(gradients)), gradients)
        while len(self.sent) < len(self.buckets):
            self._send_next()
        totals = self._add_up()
        gathered = [
            None if bucket.owned else self.ranks.start_gather(total)
            for bucket, total in zip(self.buckets, totals, strict=True)
        ]
        for bucket, total, whole in zip(self.buckets, totals, gathered, strict=True):
            self._take(bucket, total if whole is None else whole.wait().flatten())
        self.sent.clear()
        loss, norms = self._tell(loss)
        held = [p.grad for p in self.parameters.values() if p.grad is not None]
        return Summed(loss, norms, held)

    def _arrival(self, name: str, bucket: Bucket) -> Callable[[Tensor], None]:
        def arrived(_: Tensor) -> None:
            if not self._backward_is_last:
                return
            bucket.missing.discard(name)
            while len(self.sent) < len(self.buckets) and not self.buckets[len(self.sent)].missing:
                self._send_next()

        return arrived

    def _send_next(self) -> None:
        bucket = self.buckets[len(self.sent)]
        parts = []
        for name in bucket.names:
            parameter = self.parameters[name]
            grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            parts.append(grad.reshape(-1))
            parameter.grad = None
        spare = sum(bucket.sizes) - sum(part.numel() for part in parts)
        if spare:
            parts.append(parts[0].new_zeros(spare))
        pending = self.ranks.start_scatter(torch.cat(parts), bucket.sizes)
        if not self.overlapped:
            pending.wait()
        self.sent.append(pending)

    def _add_up(self) -> list[Tensor]:
        """This rank's sums of every bucket, (n,) each."""
        received = [pending.wait() for pending in self.sent]  # (world_size, n) each
        totals = [parts[0] for parts in received]
        for rank in range(1, self.ranks.world_size):
            torch._foreach_add_(totals, [parts[rank] for parts in received])
        return totals

    def _take(self, bucket: Bucket, sums: Tensor) -> None:
        begin = 0
        for name in bucket.names:
            if bucket.owned and self.owners[name] != self.ranks.rank:
                continue
            parameter = self.parameters[name]
            parameter.grad = sums[begin : begin + parameter.numel()].view_as(parameter)
            begin += parameter.numel()

    def _tell(self, loss: Tensor) -> tuple[Tensor, Tensor]:
        """Loss and norms from the ranks that know them, in one message."""
        mine = loss.new_zeros(1 + len(self.parameters))
        mine[0] = loss
        held = [p.grad for name in self.told if (p := self.parameters[name]).grad is not None]
        if held:
            mine.index_copy_(0, self._places, torch.stack(torch._foreach_norm(held)).to(mine))
        first, *others = self.ranks.all_gather(mine).unbind()
        for other in others:
            first = first + other
        return first[0], first[1:]


def make_buckets(
    parameters: Mapping[str, nn.Parameter], owners: Mapping[str, int], world_size: int
) -> list[Bucket]:
    """Every parameter in one bucket; in the order in which backward is likely to fill them."""
    last_first = dict(reversed(list(parameters.items())))
    owned = {name: p for name, p in last_first.items() if name in owners}
    common = {name: p for name, p in last_first.items() if name not in owners}
    return [*_owned_buckets(owned, owners, world_size), *_common_buckets(common, world_size)]


def _owned_buckets(
    parameters: Mapping[str, nn.Parameter], owners: Mapping[str, int], world_size: int
) -> list[Bucket]:
    """Neighbours of one size, one for each rank."""
    filled: list[dict[int, str]] = []  # name by owner; the one that was filled last comes last
    open_ones: dict[object, dict[int, str]] = {}
    for name, parameter in parameters.items():
        kind, owner = (parameter.numel(), parameter.dtype, parameter.device), owners[name]
        bucket = open_ones.pop(kind, {})
        bucket[owner] = name
        if len(bucket) == world_size:
            filled.append(bucket)
        else:
            open_ones[kind] = bucket
    filled += open_ones.values()
    return [
        Bucket(
            names=[bucket[rank] for rank in sorted(bucket)],
            owned=True,
            sizes=[
                parameters[bucket[rank]].numel() if rank in bucket else 0
                for rank in range(world_size)
            ],
        )
        for bucket in filled
    ]


def _common_buckets(parameters: Mapping[str, nn.Parameter], world_size: int) -> list[Bucket]:
    """Of each the ranks sum parts of one size, whatever tensors they hold."""
    names, made = iter(parameters), []
    for group in buckets(list(parameters.values()), BUCKET_BYTES):
        share = -(-sum(parameter.numel() for parameter in group) // world_size)
        chosen = [next(names) for _ in group]
        made.append(Bucket(names=chosen, owned=False, sizes=[share] * world_size))
    return made
