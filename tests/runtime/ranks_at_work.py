"""What each process of test_distributed.py runs: `python ranks_at_work.py PART RANK WORLD DIR`."""

import hashlib
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fairway.runtime.distributed import Ranks, supervised
from fairway.train.clock import StepClock, WallClock
from fairway.train.config import BatchConfig, TrainConfig
from fairway.train.divergence import TrainingDiverged
from fairway.train.loop import Batch, OutOfBatches, TrainingInterrupted, training_steps
from fairway.train.muon import MuonConfig
from fairway.train.param_groups import OptimizerConfig, build_optimizers

VOCAB, WIDTH, STEPS = 17, 8, 12


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(VOCAB, WIDTH)
        # Three squares and one wide matrix: neither number is a multiple of two ranks.
        self.blocks = nn.ModuleList(nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(3))
        self.blocks.append(nn.Linear(WIDTH, 2 * WIDTH, bias=False))
        self.head = nn.Linear(2 * WIDTH, VOCAB, bias=False)

    def loss(self, tokens: Tensor, targets: Tensor) -> Tensor:
        x = self.embed(tokens)
        for block in self.blocks[:3]:
            x = x + torch.tanh(block(x))
        return F.cross_entropy(self.head(self.blocks[3](x)).flatten(0, 1), targets.flatten())


def micro_batches_of(ranks: Ranks, per_step: int) -> Iterator[Batch]:
    """This rank's share of one stream of micro-batches, dealt out anew at each step."""
    generator = torch.Generator().manual_seed(1)
    while True:
        for place in range(per_step):
            tokens = torch.randint(VOCAB, (2, 6), generator=generator)
            if place % ranks.world_size == ranks.rank:
                yield tokens, (3 * tokens + 1) % VOCAB


def config_of(micro_batches: int) -> TrainConfig:
    return TrainConfig(
        steps=STEPS,
        batch=BatchConfig(rows=2, context=6, micro_batches=micro_batches),
        optimizer=OptimizerConfig(muon=MuonConfig(lr=0.05, momentum=0.9)),
    )


def losses_of_training(
    ranks: Ranks, micro_batches: int, model: Tiny | None = None, limit: int | None = None, **more
) -> list[float]:
    model = model or Tiny()
    config = config_of(micro_batches)
    optimizers = build_optimizers(model, config.optimizer, muon_dtype=torch.float32, ranks=ranks)
    batches = islice(micro_batches_of(ranks, micro_batches), limit)
    clock = more.pop("clock", StepClock(STEPS))
    steps = training_steps(model, batches, config, optimizers, clock, ranks=ranks, **more)
    return [step.loss.item() for step in steps]


def collectives(ranks: Ranks) -> dict:
    """Of tensors on the default device."""
    mine = torch.full((2,), ranks.rank + 1.0)
    total = ranks.sum(mine)
    several = [
        torch.full((1,), ranks.rank + 1.0),
        torch.full((1, 2), ranks.rank + 1.0),
        torch.full((1,), 7.0, dtype=torch.float64),
    ]
    ranks.mean_(several)
    ranks.barrier()
    return {
        "sum": total.tolist(),
        "untouched": mine.tolist(),
        "mean_": [tensor.tolist() for tensor in several],
        "all_gather": ranks.all_gather(torch.full((2,), float(ranks.rank))).tolist(),
        "broadcast": ranks.broadcast(torch.tensor(5.0 + ranks.rank)).item(),
        "is_main": ranks.is_main,
    }


def work(ranks: Ranks) -> dict:
    found = collectives(ranks)
    found["alone"] = {n: losses_of_training(Ranks(), n) for n in (1, 2, 3)}
    found["together"] = {n: losses_of_training(ranks, n) for n in (1, 3)}
    model = Tiny()
    found["together"][2] = losses_of_training(ranks, 2, model)
    bits = b"".join(p.detach().numpy().tobytes() for p in model.parameters())
    found["weights"] = hashlib.sha256(bits).hexdigest()

    ends: list = []
    try:  # rank 0 has batches for three steps, rank 1 for one
        ends.append(losses_of_training(ranks, 2, limit=3 if ranks.is_main else 1))
    except OutOfBatches as error:
        ends.append(str(error))
    found["ends"] = ends

    asked = iter([False, False, ranks.rank == 1])
    try:
        losses_of_training(ranks, 2, stop=lambda: next(asked))
    except TrainingInterrupted as error:
        found["stopped_after"] = int(str(error).split()[-1])

    ticks = iter(range(0, 10_000, 1 if ranks.is_main else 3))  # rank 1's own watch runs fast
    clock = WallClock(20.0, ranks=ranks, now=lambda: float(next(ticks)))
    found["clock_steps"] = len(losses_of_training(ranks, 2, clock=clock))

    broken = Tiny()
    plain_loss, calls = broken.loss, iter(range(10_000))

    def loss(tokens: Tensor, targets: Tensor) -> Tensor:
        bad = ranks.rank == 1 and next(calls) == 1
        return plain_loss(tokens, targets) * (float("nan") if bad else 1.0)

    broken.loss = loss  # type: ignore[method-assign]
    try:
        losses_of_training(ranks, 2, broken)
    except TrainingDiverged as error:
        found["diverged"] = str(error)
    return found


def a_bug() -> float:
    return 1 / 0


def hang() -> None:
    while True:
        time.sleep(0.01)


def fall_out(part: str, rank: int) -> None:
    """What happens to the last rank, in the middle of its steps."""
    if part == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif part == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif part == "hang":
        hang()
    elif part == "die":
        a_bug()
    elif part == "slow":
        time.sleep(0.06)


def take_steps(part: str, ranks: Ranks, device: torch.device) -> None:
    """Steps of a hundredth of a second, in lockstep, until something happens."""
    with ranks.lockstep():
        for step in range(100):
            time.sleep(0.01)
            ranks.sum_([torch.ones(1000, device=device)])
            if ranks.rank == ranks.world_size - 1 and (step >= 20 or part == "slow"):
                fall_out(part, ranks.rank)
            ranks.barrier()


def main(part: str, ranks: Ranks, folder: str) -> int:
    ranks.watchdog.report_seconds = 2.0
    part, _, kind = part.partition("-on-")
    device = torch.device(f"{kind}:{ranks.rank}" if kind else "cpu")
    with ranks.running(
        device,
        init_method=f"file://{folder}/meeting",
        timeout_seconds=10 if part == "pack for long" else 30,
        peer_seconds=3.0,
    ):
        if part == "work":
            print(json.dumps(work(ranks)))
        elif part == "collectives":
            with device:
                print(json.dumps(collectives(ranks)))
        elif part in ("pack", "pack for long"):  # alone, for longer than a silence may be
            if ranks.is_main:
                time.sleep(5.0 if part == "pack" else 12.0)
            ranks.barrier()
        else:
            take_steps(part, ranks, device)
    return 0


if __name__ == "__main__":
    torch.set_num_threads(1)
    part, rank, world_size, folder = sys.argv[1:]
    here = replace(Ranks(), rank=int(rank), world_size=int(world_size), local_rank=int(rank))
    sys.exit(supervised(lambda: main(part, here, folder), here))
