"""Tokens a second of decoding, one stream and many in step, in native and settled arithmetic, for
one run's model. By hand.

    python benchmarks/proof.py runs/pocket runs/pocket/data

Without arguments it makes a small run to measure. Each line encodes the first tokens of the
validation text, decodes them again, and refuses to print a rate where other bytes came back.
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path
from typing import get_args

import torch
from measuring.rows import show
from measuring.small_run import given_or_small_run

from fairway.artifact.config_json import config_to_json
from fairway.artifact.loaded_model import load_model
from fairway.evaluate.config import Arithmetic, EvaluateConfig
from fairway.evaluate.learners.sgd import Sgd
from fairway.proof.compress import CompressConfig, code, decompress
from fairway.proof.prove import evaluation_of
from fairway.tokens.shards import DataFolder


def ways(own: EvaluateConfig, num_tokens: int) -> dict[str, EvaluateConfig]:
    """How the text is scored: the run's own way, and two plainer ones."""
    frozen = replace(own, ttt=None, mixture=None)
    chunk_tokens = min(1024, num_tokens // 2)  # so that something is learned from, however brief
    sgd = Sgd(chunk_tokens=chunk_tokens, epochs=3, lr=0.01, batch_sequences=4)
    return {"frozen": frozen, "SGD": replace(frozen, ttt=sgd), "the run's own": own}


def decoding_speed(
    run: Path, data: DataFolder, tokens: int, segments: int, threads: int, arithmetic: Arithmetic
) -> None:
    """One stream of `tokens`, then four times as many in `segments` that are coded in step."""
    loaded = load_model(run / "model.fwy")
    for in_step, num_tokens in ((1, tokens), (segments, 4 * tokens)):
        text = data.tokenizer.decode(data.val[:num_tokens].tolist())
        settings = CompressConfig(
            segments=in_step, threads=threads, arithmetic=arithmetic, guard=False
        )
        for name, config in ways(evaluation_of(loaded), num_tokens).items():
            model = replace(loaded, evaluate=config_to_json(config))
            packed = code(model, text, settings)
            begin = time.perf_counter()
            if decompress(model, packed) != text:
                raise SystemExit(f"{name}, {in_step} segments: other bytes came back")
            seconds = time.perf_counter() - begin
            show(
                f"{arithmetic}, {name}, {in_step} in step, {threads} threads",
                tokens_per_second=num_tokens / seconds,
                bits_per_byte=8 * len(packed) / len(text),
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, nargs="?")
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--tokens", type=int, default=4096, help="of one stream; times 4 in step")
    parser.add_argument("--segments", type=int, default=32)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--arithmetic", nargs="*", default=get_args(Arithmetic), help="both")
    parser.add_argument("--brief", action="store_true", help="256 tokens, 8 segments")
    args = parser.parse_args()
    tokens, segments = (256, 8) if args.brief else (args.tokens, args.segments)
    with given_or_small_run(args.run, args.data) as (run, data):
        for arithmetic in args.arithmetic:
            decoding_speed(run, DataFolder(data), tokens, segments, args.threads, arithmetic)


if __name__ == "__main__":
    main()
