"""Tokens a second of one stream: the decode step in C++ against the plain forward pass. By hand.

    OMP_NUM_THREADS=1 python benchmarks/decoding.py [RUN DATA] --tokens 2048

Without a run and its data, `pocket` at its initial weights reads the built-in text: what a token
costs does not depend on what the weights are. A stream is decompressed from what was compressed
before, frozen and as the recipe learns, in native and in settled arithmetic. The two sides take
turns, and a side that brings other bytes back ends it all. Seconds are of this process alone.
"""

import argparse
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import torch
from measuring.rows import show
from measuring.small_run import given_or_small_data

from fairway.artifact.config_json import config_to_json
from fairway.artifact.loaded_model import LoadedModel, load_model
from fairway.evaluate.config import Arithmetic
from fairway.model.decode_step import describe_step
from fairway.model.gpt import GPT
from fairway.proof.compress import CompressConfig, compress, decompress
from fairway.proof.prove import evaluation_of
from fairway.recipes.registry import recipe
from fairway.runtime.device import seed_everything
from fairway.runtime.native import untuned
from fairway.tokens.shards import DataFolder

ARITHMETICS: tuple[Arithmetic, ...] = ("native", "settled")


def untrained(data: DataFolder) -> LoadedModel:
    seed_everything(0)
    chosen = recipe("pocket")
    return LoadedModel(
        model=GPT(chosen.model).eval(),
        tokenizer=data.tokenizer,
        evaluate=config_to_json(chosen.evaluate),
        sha256="0" * 64,
    )


def seconds_of(model: LoadedModel, packed: bytes, expected: bytes) -> float:
    begin = time.process_time()
    if decompress(model, packed) != expected:
        raise SystemExit("other bytes came back")
    return time.process_time() - begin


def measure(loaded: LoadedModel, data: DataFolder, tokens: int, repeats: int) -> None:
    text = data.tokenizer.decode(data.val[:tokens].tolist())
    own = evaluation_of(loaded)
    for name, config in {"frozen": own.frozen(), "as the recipe learns": own}.items():
        model = replace(loaded, evaluate=config_to_json(config))
        for arithmetic in ARITHMETICS:
            settings = CompressConfig(segments=1, threads=1, arithmetic=arithmetic, guard=False)
            seconds: list[list[float]] = []
            sides = {}
            for side, switch in {"plain": untuned, "C++": nullcontext}.items():
                with switch():
                    sides[side] = compress(model, text, settings)
            for _ in range(repeats):
                seconds.append([])
                for side, switch in {"plain": untuned, "C++": nullcontext}.items():
                    with switch():
                        seconds[-1].append(seconds_of(model, sides[side], text))
            plain, ours = (min(found) for found in zip(*seconds, strict=True))
            show(
                f"one stream, {name}, {arithmetic}",
                tokens_per_second=tokens / ours,
                plain_tokens_per_second=tokens / plain,
                times_as_fast=plain / ours,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, nargs="?")
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--brief", action="store_true", help="256 tokens, once")
    args = parser.parse_args()
    torch.set_num_threads(1)
    tokens, repeats = (256, 1) if args.brief else (args.tokens, args.repeats)
    with given_or_small_data(args.data) as folder:
        data = DataFolder(folder)
        loaded = untrained(data) if args.run is None else load_model(args.run / "model.fwy")
        print(f"one more token: {describe_step(loaded.model)}")
        measure(loaded, data, tokens, repeats)


if __name__ == "__main__":
    main()
