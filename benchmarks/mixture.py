"""The n-gram mixture in C++ against its plain form: microseconds a token, the model left out.

    python benchmarks/mixture.py DATA --tokens 60000

Without DATA it takes the built-in text. Both forms read the same text in chunks of 1,024 tokens
with sliding windows of 256 by 64, as `pocket` scores; the model's part is a table of random
probabilities, made beforehand. The two take turns; the ratio is that of their fastest repeats.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from measuring.rows import show
from measuring.small_run import given_or_small_data

from fairway.evaluate.chunks import Chunk, plan_chunks, read_chunks
from fairway.evaluate.learners.evidence import gather_evidence
from fairway.evaluate.learners.gates import Gates
from fairway.evaluate.learners.mixture import Mixture, chosen_gates
from fairway.evaluate.learners.ngram_compiled import new_memory
from fairway.runtime.native import explain, switched_off
from fairway.tokens.shards import DataFolder
from fairway.tokens.val_text import ValText


def mix_text(chunks: list[Chunk], vocab_size: int) -> tuple[float, np.ndarray]:
    """Seconds, and the mixed probability of every target."""
    config, random = Mixture(), np.random.default_rng(0)
    memory = new_memory(config.orders, config.fade, vocab_size)
    gates = Gates(memory.orders_of_kinds(), memory=config.memory, open=config.open)
    found, seconds = [], 0.0
    for chunk in chunks:
        model = random.random(chunk.num_targets) ** 4 + 1e-9
        begin = time.perf_counter()
        branch = memory.branch()
        says = gather_evidence(chunk, lambda row, branch=branch: branch)
        seconds += time.perf_counter() - begin
        log_probs = torch.from_numpy(random.random(len(says.kinds)) * -8.0)  # of what is pointed at
        begin = time.perf_counter()
        chosen = chosen_gates(says.kinds, says.pointed, log_probs)
        found.append(gates.mix(says, chosen, model))
        memory.absorb(branch)
        seconds += time.perf_counter() - begin
    return seconds, np.concatenate(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--tokens", type=int, default=60_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--brief", action="store_true", help="4,096 tokens, once")
    args = parser.parse_args()
    tokens, repeats = (4096, 1) if args.brief else (args.tokens, args.repeats)
    with given_or_small_data(args.data) as folder:
        data = DataFolder(folder)
        text = ValText.of(data, tokens)
        vocab_size = int(text.tokens.max()) + 1
    chunks = list(read_chunks(plan_chunks(len(text.tokens), 256, 64, 1024), text))
    print(explain("ngram"))
    plain, compiled, gap = [], [], 0.0
    for _ in range(repeats):
        with switched_off():
            seconds, expected = mix_text(chunks, vocab_size)
        plain.append(seconds)
        seconds, found = mix_text(chunks, vocab_size)
        compiled.append(seconds)
        gap = float(np.abs(found - expected).max())
    per_token = 1e6 / len(expected)
    show(
        "n-gram mixture",
        plain_microseconds_per_token=min(plain) * per_token,
        compiled_microseconds_per_token=min(compiled) * per_token,
        times_as_fast=min(plain) / min(compiled),
        gap=gap,
    )


if __name__ == "__main__":
    main()
