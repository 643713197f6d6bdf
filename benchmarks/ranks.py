"""What two ranks on one CPU spend in waiting for each other, by how gradients travel. By hand.

    OMP_NUM_THREADS=1 python benchmarks/ranks.py pocket

Three ways take turns, step by step, in one process group: each message waited for before the next
is sent; all sent after backward; each sent during backward as soon as it is complete. What is
learned is the same to the last bit. Rank 0 prints the shares of the steps' time.
"""

import argparse
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from unittest.mock import patch

import torch
from measuring.rows import show
from torch import Tensor

from fairway.model.gpt import GPT
from fairway.recipes.recipe import Recipe
from fairway.recipes.registry import recipe, smoke
from fairway.runtime.distributed import Pending, Ranks, supervised
from fairway.runtime.kernel_choice import choose_kernels
from fairway.runtime.meter import Spell
from fairway.train.clock import StepClock
from fairway.train.loop import Step, training_steps
from fairway.train.param_groups import build_optimizers

WAYS = ("one after the other", "after backward", "during backward")
CPU = torch.device("cpu")


def steps_of(chosen: Recipe, ranks: Ranks, way: str) -> Iterator[Step]:
    torch.manual_seed(0)
    model, batch = GPT(chosen.model).train(), chosen.train.batch
    config = replace(
        chosen.train,
        seconds=None,
        steps=10_000,
        reserve_seconds=0.0,
        batch=replace(batch, micro_batches=ranks.world_size, micro_batch_ramp=None),
    )
    optimizers = build_optimizers(model, config.optimizer, muon_dtype=torch.float32, ranks=ranks)
    tokens = torch.randint(2, chosen.model.vocab_size, (batch.rows, batch.context + 1))
    pair: tuple[Tensor, Tensor] = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()
    return training_steps(
        model,
        iter(lambda: pair, None),
        config,
        optimizers,
        StepClock(10_000),
        ranks=ranks,
        overlapped=way == WAYS[2],
    )


@contextmanager
def waiting_at_once(way: str) -> Iterator[None]:
    """The first way: what begins is waited for."""
    if way != WAYS[0]:
        yield
        return
    begin = Ranks.start_scatter, Ranks.start_gather

    def finished(start):
        def both(*args) -> Pending:
            pending = start(*args)
            pending.wait()
            return pending

        return both

    with (
        patch.object(Ranks, "start_scatter", finished(begin[0])),
        patch.object(Ranks, "start_gather", finished(begin[1])),
    ):
        yield


def measure(chosen: Recipe, ranks: Ranks, rounds: int) -> None:
    switch, said = choose_kernels(CPU)
    spells = {way: [0.0, 0.0] for way in WAYS}  # seconds of steps, of waiting
    with switch(), ranks.lockstep():
        sides = {way: steps_of(chosen, ranks, way) for way in WAYS}
        for number in range(2 + rounds):
            for way, side in sides.items():
                ranks.barrier()  # a wait for who was late in the step before is none of this one's
                before = ranks.meter.read()
                with waiting_at_once(way):
                    next(side)
                spell = Spell.between(before, ranks.meter.read())
                if number >= 2:  # the first ones warm up
                    spells[way][0] += spell.total
                    spells[way][1] += spell.waited
    base = spells[WAYS[0]][0]
    for way, (total, waited) in spells.items():
        if ranks.is_main:
            show(
                f"{chosen.name} on {ranks.world_size} ranks, {way}",
                waiting_share=waited / total,
                step_seconds=total / rounds,
                of_the_first=total / base,
                kernels=said,
            )


def main(chosen: Recipe, ranks: Ranks, rounds: int, folder: str) -> int:
    with ranks.running(CPU, init_method=f"file://{folder}/meeting"):
        measure(chosen, ranks, rounds)
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe", nargs="?", default="pocket")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--brief", action="store_true", help="a miniature of the recipe")
    args = parser.parse_args()
    torch.set_num_threads(1)
    wanted = smoke(recipe(args.recipe)) if args.brief else recipe(args.recipe)
    count = 3 if args.brief else args.rounds
    with tempfile.TemporaryDirectory() as place:
        children = []
        for rank in range(args.ranks):
            child = os.fork()
            if not child:
                here = Ranks(rank, args.ranks, rank, args.ranks)
                supervised(lambda here=here: main(wanted, here, count, place), here)
            children.append(child)
        failed = [child for child in children if os.waitpid(child, 0)[1]]
    raise SystemExit(bool(failed))
