"""The pocket recipe against nanoGPT's training: the same tokens, seconds and cores. By hand.

    python benchmarks/train.py DATA --seconds 180

DATA is a folder made by `fairway prepare`. Both models have 4 layers of width 192 and are scored as
float weights on non-overlapping windows of 256 over the same validation text; ours is also scored
sliding. Prints one JSON line each.
"""

import argparse
import json
import math
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from nanogpt import NanoGPT
from nanogpt import train as train_nanogpt

from fairway.evaluate.config import plan_text
from fairway.evaluate.frozen import Frozen
from fairway.model.gpt import GPT
from fairway.pipeline.scoring import evaluate, without_learning
from fairway.pipeline.training import train_and_average
from fairway.recipes.registry import recipe
from fairway.runtime.device import choose_device, machine, seed_everything
from fairway.runtime.run_log import RunLog
from fairway.runtime.setup import set_up
from fairway.tokens.batches import Batches
from fairway.tokens.shards import DataFolder
from fairway.tokens.val_text import ValText
from fairway.train.clock import WallClock

CONTEXT = 256


@torch.inference_mode()
def bits_per_byte(model: NanoGPT, text: ValText) -> float:
    """Non-overlapping windows, tail included."""
    nats = 0.0
    for begin in range(0, len(text.tokens) - 1, CONTEXT):
        part = text.tokens[begin : begin + CONTEXT + 1]
        logits = model.eval()(part[None, :-1])[0]
        nats += F.cross_entropy(logits.double(), part[1:], reduction="sum").item()
    return nats / math.log(2) / int(text.target_bytes.sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--seconds", type=float, default=180.0)
    parser.add_argument("--val-tokens", type=int, default=100_000)
    args = parser.parse_args()
    data, chosen = DataFolder(args.data), recipe("pocket")
    text = ValText.of(data, args.val_tokens)
    log = RunLog(None)
    here = set_up(log, choose_device(None))

    seed_everything(0)
    model = NanoGPT(chosen.model.vocab_size, 192, 4, 6, CONTEXT)
    batches = Batches(data.train, chosen.tokens.order, rows=8, context=CONTEXT)
    steps = train_nanogpt(model, batches, WallClock(args.seconds), here.compute_dtype)
    theirs = {"model": "nanoGPT", "steps": steps, "float": bits_per_byte(model, text)}
    print(json.dumps(theirs | machine()), flush=True)

    seed_everything(0)
    train = replace(chosen.train, seconds=args.seconds, reserve_seconds=5.0)
    ours = GPT(chosen.model)
    with tempfile.TemporaryDirectory() as out:
        timed = replace(chosen, train=train)
        trained = train_and_average(ours, timed, data, Path(out), here)
    sliding = without_learning(chosen.evaluate)
    row = {"model": "pocket", "steps": trained.facts["steps"]}
    for name, stride in (("float", CONTEXT), ("sliding", 64)):
        config = replace(sliding, stride=stride)
        found = evaluate(Frozen(ours, config.rows), plan_text(config, text), text, here, name)
        row[name] = found.score.bits_per_byte
    print(json.dumps(row | machine()), flush=True)


if __name__ == "__main__":
    main()
