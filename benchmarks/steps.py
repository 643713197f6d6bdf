"""Training steps side by side: a recipe's against its peers', in turn, in one process. By hand.

    python benchmarks/steps.py pocket --repeats 30
    python benchmarks/steps.py naive_baseline --repeats 5

Sides take one step each, again and again, so that whatever else the machine does hits all of them;
what is printed is tokens a second at the median step of each, and their ratio to the fastest peer.
A step is one micro-batch of at most 8,192 tokens, which is what two cores can take.
Ours: eager with C++ kernels, eager without, and compiled. Peers: `peers/plain.py` for pocket,
nanoGPT of 9 x 384 for the baseline's shape, each eager and compiled.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace

import torch
import torch.nn.functional as F
from measuring.rows import show
from peers.nanogpt import NanoGPT
from peers.plain import PlainGPT, adamw
from torch import Tensor, nn

from fairway.model.gpt import GPT
from fairway.recipes.recipe import Recipe
from fairway.recipes.registry import recipe
from fairway.runtime import kernels_cpu
from fairway.runtime.device import seed_everything
from fairway.train.clock import StepClock
from fairway.train.compiled import compile_loss
from fairway.train.loop import training_steps
from fairway.train.param_groups import build_optimizers

MOST_TOKENS = 8192
Side = Callable[[], object]  # takes one step


def of_one_batch(chosen: Recipe) -> Recipe:
    """The recipe with steps of one micro-batch, of no more than `MOST_TOKENS`."""
    batch = chosen.train.batch
    rows = max(1, min(batch.rows, MOST_TOKENS // batch.context))
    small = replace(batch, rows=rows, micro_batches=1, micro_batch_ramp=None)
    return replace(chosen, train=replace(chosen.train, batch=small))


def batches(chosen: Recipe) -> Iterator[tuple[Tensor, Tensor]]:
    batch, vocab = chosen.train.batch, chosen.model.vocab_size
    source = torch.Generator().manual_seed(0)
    while True:
        tokens = torch.randint(vocab, (batch.rows, batch.context + 1), generator=source)
        yield tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()


def ours(chosen: Recipe, dtype: torch.dtype, *, kernels: bool, compiled: bool) -> Side:
    seed_everything(0)
    model, config = GPT(chosen.model).train(), replace(chosen.train, loops_at=None)
    if compiled:
        batch = config.batch
        model.loss = compile_loss(model, batch.rows, batch.context, dtype, {True})  # type: ignore[method-assign]
    optimizers = build_optimizers(model, config.optimizer, muon_dtype=dtype)
    clock = StepClock(1_000_000)
    steps = training_steps(model, batches(chosen), config, optimizers, clock, compute_dtype=dtype)

    def step() -> None:
        with kernels_cpu.in_use() if kernels else nullcontext():
            next(steps)

    return step


def peer(chosen: Recipe, dtype: torch.dtype, *, compiled: bool) -> Side:
    """A step of the plain GPT, or of nanoGPT as it trains, for the baseline's shape."""
    seed_everything(0)
    shape, source = chosen.model, batches(chosen)
    if chosen.name == "pocket":
        model: nn.Module = PlainGPT(shape.vocab_size, shape.model_dim, shape.num_layers, 3, 256)
        loss = model.loss
    else:  # of about the baseline's arithmetic
        model = NanoGPT(shape.vocab_size, 384, 9, 6, chosen.train.batch.context)

        def loss(tokens: Tensor, targets: Tensor) -> Tensor:
            with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
                return F.cross_entropy(model(tokens).flatten(0, 1).float(), targets.flatten())

    optimizer = adamw(model)
    loss = torch.compile(loss, dynamic=False) if compiled else loss

    def step() -> None:
        loss(*next(source)).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def measure(sides: dict[str, Side], repeats: int, clock: Callable[[], float]) -> dict[str, float]:
    """Median seconds of each, after two steps that do not count."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(2 + repeats):
        for name, side in sides.items():
            begin = clock()
            side()
            if turn >= 2:
                seconds[name].append(clock() - begin)
    return {name: statistics.median(found) for name, found in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe", nargs="?", default="pocket")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--eager", action="store_true", help="nothing compiled")
    parser.add_argument(
        "--processor",
        action="store_true",
        help="processor seconds: for a busy machine, with OMP_NUM_THREADS=1",
    )
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    parser.add_argument("--brief", action="store_true", help="two steps, nothing compiled")
    args = parser.parse_args()
    chosen, dtype = of_one_batch(recipe(args.recipe)), getattr(torch, args.dtype)
    repeats = 2 if args.brief else args.repeats
    sides = {
        "ours, C++ kernels": ours(chosen, dtype, kernels=True, compiled=False),
        "ours, plain": ours(chosen, dtype, kernels=False, compiled=False),
        "peer": peer(chosen, dtype, compiled=False),
    }
    if not (args.eager or args.brief):
        sides["ours, compiled"] = ours(chosen, dtype, kernels=False, compiled=True)
        sides["peer, compiled"] = peer(chosen, dtype, compiled=True)
    found = measure(sides, repeats, time.process_time if args.processor else time.perf_counter)
    best = min(seconds for name, seconds in found.items() if name.startswith("peer"))
    tokens = chosen.train.batch.rows * chosen.train.batch.context
    for name, seconds in found.items():
        show(
            f"{args.recipe} in {args.dtype}: {name}",
            tokens_per_second=tokens / seconds,
            times_the_best_peer=best / seconds,
        )


if __name__ == "__main__":
    main()
