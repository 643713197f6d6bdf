"""The pocket recipe against nanoGPT's training: the same tokens, seconds and cores. By hand.

    python benchmarks/train.py DATA --seconds 180

DATA is a folder made by `fairway prepare`, or the built-in text where it is left out. Both models
have 4 layers of width 192 and are scored as float weights on non-overlapping windows of 256 over
the same validation text; ours is also scored sliding. Prints one JSON line each.
"""

import argparse
import math
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from measuring.rows import show
from measuring.small_run import given_or_small_data
from peers.nanogpt import NanoGPT
from peers.nanogpt import train as train_nanogpt

from fairway.evaluate.config import plan_text
from fairway.evaluate.frozen import Frozen
from fairway.model.gpt import GPT
from fairway.pipeline.folder import RunFolder
from fairway.pipeline.scoring import score_text
from fairway.pipeline.training import train_and_average
from fairway.recipes.recipe import Recipe
from fairway.recipes.registry import recipe
from fairway.runtime.device import choose_device, seed_everything
from fairway.runtime.run_log import RunLog
from fairway.runtime.setup import Runtime
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


def train_theirs(
    chosen: Recipe, data: DataFolder, text: ValText, seconds: float, runtime: Runtime
) -> None:
    seed_everything(0)
    model = NanoGPT(chosen.model.vocab_size, 192, 4, 6, CONTEXT)
    batches = Batches(data.train, chosen.tokens.order, rows=8, context=CONTEXT)
    steps = train_nanogpt(model, batches, WallClock(seconds), runtime.compute_dtype)
    show("nanoGPT", steps=steps, float=bits_per_byte(model, text))


def train_ours(
    chosen: Recipe, data: DataFolder, text: ValText, seconds: float, runtime: Runtime
) -> None:
    seed_everything(0)
    reserve = min(5.0, seconds / 4)
    train = replace(chosen.train, seconds=seconds, reserve_seconds=reserve)
    ours = GPT(chosen.model)
    with tempfile.TemporaryDirectory() as out:
        timed = replace(chosen, train=train)
        folder = RunFolder.open(Path(out), timed, data, runtime)
        folder.begin(timed, runtime)
        trained = train_and_average(ours, timed, data, folder, runtime)
    sliding = chosen.evaluate.frozen()
    scores = {}
    for name, stride in (("float", CONTEXT), ("sliding", 64)):
        config = replace(sliding, stride=stride)
        found = score_text(Frozen(ours, config.rows), plan_text(config, text), text, runtime, name)
        scores[name] = found.score.bits_per_byte
    show("pocket", steps=trained.steps, **scores)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--seconds", type=float, default=180.0)
    parser.add_argument("--val-tokens", type=int, default=100_000)
    parser.add_argument(
        "--brief", action="store_true", help="12 s, 4,096 tokens of validation text"
    )
    args = parser.parse_args()
    seconds, num_tokens = (12.0, 4096) if args.brief else (args.seconds, args.val_tokens)
    runtime, chosen = Runtime(choose_device(), log=RunLog()).measured(), recipe("pocket")
    with given_or_small_data(args.data) as folder:
        data = DataFolder(folder)
        text = ValText.of(data, num_tokens)
        train_theirs(chosen, data, text, seconds, runtime)
        train_ours(chosen, data, text, seconds, runtime)


if __name__ == "__main__":
    main()
