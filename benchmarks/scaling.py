"""How the cost of a training step grows: slopes in each direction from the pocket recipe's shape.

    OMP_NUM_THREADS=1 python benchmarks/scaling.py

A slope is that of log(processor seconds of a step) over log(size), by least squares: 1 is
proportional. Sizes of one direction take turns; the least of their repeats counts.
"""

import argparse
import time
from dataclasses import replace

import numpy as np
import torch
from measuring.rows import show

from fairway.model.gpt import GPT
from fairway.recipes.recipe import Recipe
from fairway.recipes.registry import recipe
from fairway.runtime.kernel_choice import choose_kernels
from fairway.train.clock import StepClock
from fairway.train.loop import training_steps
from fairway.train.param_groups import build_optimizers


def of_size(base: Recipe, direction: str, size: int) -> Recipe:
    model, batch = base.model, base.train.batch
    if direction == "width":
        attention = replace(model.attention, num_heads=size // 64, num_kv_heads=size // 64)
        model = replace(model, model_dim=size, attention=attention)
    elif direction == "depth":
        attention = replace(model.attention, exclusive_layers=size)
        model = replace(model, num_layers=size, attention=attention)
    elif direction == "vocabulary":
        model = replace(model, vocab_size=size)
    elif direction == "context":  # as many tokens a step
        batch = replace(batch, context=size, rows=max(1, 2048 // size))
    else:
        batch = replace(batch, rows=size // batch.context)
    tokens, train = replace(base.tokens, vocab_size=model.vocab_size), base.train
    return replace(base, model=model, tokens=tokens, train=replace(train, batch=batch))


def steps_of(chosen: Recipe):
    torch.manual_seed(0)
    model, batch = GPT(chosen.model).train(), chosen.train.batch
    optimizers = build_optimizers(model, chosen.train.optimizer)
    tokens = torch.randint(2, chosen.model.vocab_size, (2, batch.rows, batch.context))
    return training_steps(
        model,
        iter([(tokens[0], tokens[1])] * 1000),
        chosen.train,
        optimizers,
        StepClock(1000),
        compute_dtype=torch.bfloat16,
    )


SIZES = {
    "width": (128, 256, 512, 1024),
    "depth": (2, 4, 8, 16),
    "vocabulary": (1024, 2048, 4096, 8192),
    "context": (128, 256, 512, 1024),
    "tokens a step": (1024, 2048, 4096, 8192),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", nargs="*", choices=list(SIZES), help="directions; all if absent")
    parser.add_argument("--brief", action="store_true", help="two sizes of each, once")
    args = parser.parse_args()
    switch, said = choose_kernels(torch.device("cpu"))
    print(f"kernels of a step: {said}")
    for direction, sizes in SIZES.items():
        if args.only and direction not in args.only:
            continue
        chosen = sizes[:2] if args.brief else sizes
        walks = {size: steps_of(of_size(recipe("pocket"), direction, size)) for size in chosen}
        seconds = dict.fromkeys(chosen, float("inf"))
        with switch():
            for turn in range(1 if args.brief else 1 + args.repeats):
                for size, walk in walks.items():
                    begin = time.process_time()
                    next(walk)
                    if turn or args.brief:
                        seconds[size] = min(seconds[size], time.process_time() - begin)
        slope = np.polyfit(np.log(list(seconds)), np.log(list(seconds.values())), 1)[0]
        top = sizes[len(chosen) - 1]
        last = np.log(seconds[top] / seconds[chosen[-2]]) / np.log(top / chosen[-2])
        milliseconds = {str(size): round(1000 * found, 1) for size, found in seconds.items()}
        show(direction, slope=float(slope), slope_at_the_top=float(last), ms=str(milliseconds))


if __name__ == "__main__":
    main()
