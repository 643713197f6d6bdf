"""Bytes and seconds of PMATIC (arXiv 2601.10678) beside settled arithmetic, on one frozen model.

    python benchmarks/pmatic.py RUN DATA [--tokens 20000]

PMATIC spells a token in bits, rounds the probability of each to the middle of a bin, and sends
before it a second bit, nearly always 0, that says whether the probability lies so near an edge that
a decoder may see the neighbouring bin; then both take the edge. It needs no agreement beyond a
bound on how far logits differ, and no list of ties. Ours needs the list, and no second bits. Both
are given the same bound. What PMATIC does not speak of is a model that learns: weights that differ
at all come apart without end, so the rows are of a frozen one. Seconds of settled and pmatic are
those beside the model's own.
"""

import argparse
import json
import time
from pathlib import Path

import constriction
import numpy as np
import torch
from torch import Tensor

from fairway.artifact.loaded_model import load_model
from fairway.coding.settled import slices_of
from fairway.coding.symbols import TextEncoder
from fairway.evaluate.chunks import cut_chunk
from fairway.evaluate.config import make_settled_predictor, plan_text
from fairway.evaluate.ledger import Margins
from fairway.evaluate.settled import Settled
from fairway.proof.prove import evaluation_of
from fairway.proof.ties import tie_bytes
from fairway.tokens.shards import DataFolder
from fairway.tokens.val_text import ValText

WIDTHS = tuple(2.0**-bits for bits in range(4, 17))  # of a bin, of which the cheapest is taken
STREAM = constriction.stream  # pyright: ignore[reportAttributeAccessIssue]


def branches(logits: Tensor, tokens: Tensor) -> Tensor:
    """(n, bits) float64: how likely each bit of a token is 1, given those before it."""
    depth = max(1, (logits.size(1) - 1).bit_length())
    mass = torch.zeros(len(logits), 1 << depth, dtype=torch.float64)
    mass[:, : logits.size(1)] = logits.softmax(-1)
    found = []
    for level in range(depth):
        halves = mass.view(len(mass), 1 << (level + 1), -1).sum(-1)
        prefix = tokens >> (depth - level)
        one = halves.gather(1, (2 * prefix + 1)[:, None])[:, 0]
        zero = halves.gather(1, (2 * prefix)[:, None])[:, 0]
        found.append(one / (one + zero))
    return torch.stack(found, 1)


def matched(one: np.ndarray, width: float, delta: float) -> tuple[np.ndarray, np.ndarray]:
    """What both sides take for a probability, and whether it is an edge of a bin."""
    edge = np.clip(np.rint(one / width), 1, round(1 / width) - 1) * width
    near = np.abs(one - edge) <= delta
    middle = (np.minimum(np.floor(one / width), round(1 / width) - 1) + 0.5) * width
    return np.where(near, edge, middle), near


def ideal_bits(one: np.ndarray, bits: np.ndarray, width: float, delta: float) -> float:
    taken, near = matched(one, width, delta)
    flag = max(2 * delta / width, 1e-9)
    cost = -np.log2(np.where(bits, taken, 1 - taken)).sum()
    return float(cost - np.log2(np.where(near, flag, 1 - flag)).sum())


def pmatic_bytes(one: np.ndarray, bits: np.ndarray, width: float, delta: float) -> int:
    """Of a stream that is really written: second bit, bit, second bit, ..."""
    taken, near = matched(one, width, delta)
    flag = max(2 * delta / width, 1e-9)
    symbols = np.stack([near, bits], 1).ravel().astype(np.int32)
    odds = np.stack([np.full(len(taken), flag), taken], 1).ravel()
    coder = STREAM.queue.RangeEncoder()
    coder.encode(symbols, STREAM.model.Bernoulli(perfect=False), odds)
    return coder.get_compressed().nbytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="a run folder")
    parser.add_argument("data", type=Path)
    parser.add_argument("--tokens", type=int, default=20_000)
    parser.add_argument("--brief", action="store_true", help="1,000 tokens")
    args = parser.parse_args()
    loaded = load_model(args.run / "model.fwy")
    text = ValText.of(DataFolder(args.data), 1_000 if args.brief else args.tokens)
    config = evaluation_of(loaded).frozen()
    predictor = make_settled_predictor(loaded.model, config, seed=0)
    assert isinstance(predictor, Settled)  # as without a mixture
    bound = Margins().logit
    delta = bound / 2  # a bit's log odds move by at most twice a logit's bound
    ours, ones, words = TextEncoder(), [], []
    model_seconds = settled_seconds = pmatic_seconds = 0.0
    position = 0
    for plan in plan_text(config, text):
        chunk = cut_chunk(plan, text)
        begin = time.perf_counter()
        with torch.inference_mode():
            read = [
                (row[:length], chunk.texts[i][-length:])
                for one, logits in predictor.batches(chunk)
                for row, i, length in zip(logits, one.members, one.num_targets, strict=True)
            ]
        model_seconds += time.perf_counter() - begin
        begin = time.perf_counter()
        for logits, tokens in read:
            places = torch.arange(position, position + len(tokens))
            position += len(tokens)
            slices = slices_of(predictor.ledger.ends(logits, places), tokens)
            ours.push_slices(*(part.numpy() for part in slices))
        settled_seconds += time.perf_counter() - begin
        begin = time.perf_counter()
        for logits, tokens in read:
            ones.append(branches(logits, tokens))
            words.append(tokens)
        pmatic_seconds += time.perf_counter() - begin
    code = len(ours.finish()) + tie_bytes(predictor.ledger.ties)

    begin = time.perf_counter()
    one, tokens = torch.cat(ones), torch.cat(words)
    depth = one.size(1)
    bits = (tokens[:, None] >> torch.arange(depth - 1, -1, -1)) & 1
    flat, asked = one.numpy().ravel(), bits.numpy().ravel().astype(bool)
    width = min(WIDTHS, key=lambda width: ideal_bits(flat, asked, width, delta))
    theirs = pmatic_bytes(flat, asked, width, delta)
    pmatic_seconds += time.perf_counter() - begin
    ideal = -torch.where(bits.bool(), one, 1 - one).log2().sum().item() / 8
    rows = [
        {"name": "ideal", "bytes": ideal, "seconds": model_seconds},
        {"name": "settled", "bytes": float(code), "seconds": settled_seconds},
        {"name": "pmatic", "bytes": float(theirs), "seconds": pmatic_seconds, "bin": width},
    ]
    for row in rows:
        print(json.dumps(row))


if __name__ == "__main__":
    main()
