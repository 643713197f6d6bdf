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

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fairway.runtime.distributed import Pending, Ranks
from fairway.train.muon import gradients_of

BUCKET_BYTES = 8 * 2**20  # of gradients that nobody owns: few messages, and the first one soon


class Bucket(NamedTuple):
    """One message of gradients of one type: all have owners, or none has.

    names  in the order in which they are sent
    sizes  numbers that each rank sums
    """

    names: list[str]
    sizes: list[int]


class GradientExchange:
    """Of all steps of a training. On one rank it sends nothing.

    parameters  all that learn, by name
    owners      rank by name, for gradients that only one rank needs
    last        whether the next backward pass is a step's last: what is complete may then leave
    """

    def __init__(
        self, parameters: Mapping[str, nn.Parameter], owners: Mapping[str, int], ranks: Ranks
    ) -> None:
        self.parameters, self.owners, self.ranks = dict(parameters), owners, ranks
        self.buckets = [] if ranks.world_size == 1 else make_buckets(parameters, owners, ranks)
        self.sent: list[Pending] = []  # of the first buckets
        self.last = False
        self._arrived: set[str] = set()  # names whose gradients of this step are there

    @contextmanager
    def overlapping(self) -> Iterator[None]:
        """What is complete leaves during backward; without this all is sent by `finish`."""
        hooks = [
            parameter.register_post_accumulate_grad_hook(partial(self._arrival, name))
            for name, parameter in self.parameters.items()
            if self.buckets
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def finish(self, loss: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Send what is left and wait for the sums.

        They are in `.grad` from now on, which is None where another rank is the owner.

        loss  () this rank's part
        returns  the whole loss (), the norms (P,) of all gradients in the order of the parameters,
                 and the gradients that this rank has
        """
        if not self.buckets:
            gradients_of(self.parameters.values())
        while len(self.sent) < len(self.buckets):
            self._send_next()
        received = [pending.wait() for pending in self.sent]  # (world_size, n) each
        totals = [parts[0] for parts in received]
        for rank in range(1, self.ranks.world_size):
            torch._foreach_add_(totals, [parts[rank] for parts in received])
        for bucket, total in zip(self.buckets, totals, strict=True):
            if bucket.names[0] not in self.owners:
                total = self.ranks.all_gather(total).flatten()
            for name in bucket.names:
                if self.owners.get(name, self.ranks.rank) == self.ranks.rank:
                    parameter = self.parameters[name]
                    parameter.grad = total[: parameter.numel()].view_as(parameter)
                    total = total[parameter.numel() :]
        self.sent, self._arrived = [], set()
        loss, norms = self._tell(loss)
        return loss, norms, [p.grad for p in self.parameters.values() if p.grad is not None]

    def _arrival(self, name: str, _: Tensor) -> None:
        if self.last:
            self._arrived.add(name)
            for bucket in self.buckets[len(self.sent) :]:
                if not self._arrived.issuperset(bucket.names):
                    break
                self._send_next()

    def _send_next(self) -> None:
        bucket = self.buckets[len(self.sent)]
        parameters = [self.parameters[name] for name in bucket.names]
        parts = [gradient.flatten() for gradient in gradients_of(parameters)]
        parts.append(parts[0].new_zeros(sum(bucket.sizes) - sum(map(len, parts))))
        self.sent.append(self.ranks.start_scatter(torch.cat(parts), bucket.sizes))
        for parameter in parameters:
            parameter.grad = None

    def _tell(self, loss: Tensor) -> tuple[Tensor, Tensor]:
        """Loss and norms, in one message. A norm is told by its owner, or else the first rank."""
        rank, zero = self.ranks.rank, loss.new_zeros(())
        told = {n: p for n, p in self.parameters.items() if self.owners.get(n, 0) == rank}
        found = torch._foreach_norm(gradients_of(told.values())) if told else ()
        norms = dict(zip(told, found, strict=True))
        mine = torch.stack([loss, *(norms.get(name, zero) for name in self.parameters)])
        total, *others = self.ranks.all_gather(mine)
        for other in others:
            total = total + other
        return total[0], total[1:]


def make_buckets(
    parameters: Mapping[str, nn.Parameter], owners: Mapping[str, int], ranks: Ranks
) -> list[Bucket]:
    """Every parameter in one bucket: neighbours of one size, as many as there are ranks, where they
    have owners, and neighbours up to `BUCKET_BYTES`. Backward fills the first ones first."""
    world_size = ranks.world_size
    filled: list[list[str]] = []  # the one that was filled last comes last
    unfilled: dict[object, list[str]] = {}
    for name, parameter in reversed(list(parameters.items())):
        owned = name in owners
        kind = (owned and parameter.numel(), parameter.dtype, parameter.device)
        bucket = [*unfilled.pop(kind, []), name]
        limit = world_size * parameter.nbytes if owned else BUCKET_BYTES
        if sum(parameters[n].nbytes for n in bucket) >= limit:
            filled.append(bucket)
        else:
            unfilled[kind] = bucket
    made = []
    for names in [*filled, *unfilled.values()]:
        names.sort(key=lambda name: owners.get(name, 0))
        of_rank = [
            sum(parameters[name].numel() for name in names if owners.get(name, rank) == rank)
            for rank in range(world_size)
        ]
        shared = 1 if names[0] in owners else world_size
        made.append(Bucket(names, [-(-numbers // shared) for numbers in of_rank]))
    return sorted(made, key=lambda bucket: bucket.names[0] not in owners)
