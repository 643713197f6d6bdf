"""How long auditing takes, and how small a fault it finds, at 5 ms a call and V = 1,024. By hand.

    python benchmarks/audit.py [--brief]

A legal scorer, one that leaks 1e-4 nats of a later token at one position in thirty, one whose
distributions sum to 1.01; then a bias that learns longest document first, and the same with a cache
that is filled in stream order, as #2135 does it.
"""

import argparse
import functools
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
from measuring.rows import show

from fairway.audit import run_audit
from fairway.audit.stream import BOS

VOCAB, CALL_SECONDS = 1024, 0.005


@functools.cache
def table() -> np.ndarray:
    """(V, V) nats of each token after each other one."""
    logits = np.random.default_rng(0).normal(size=(VOCAB, VOCAB))
    return np.log(np.exp(logits).sum(1, keepdims=True)) - logits


def legal(tokens: np.ndarray) -> np.ndarray:
    end = time.perf_counter() + CALL_SECONDS
    nats = table()[tokens[:-1], tokens[1:]]
    time.sleep(max(0.0, end - time.perf_counter()))
    return nats


def leaks(tokens: np.ndarray) -> np.ndarray:
    nats = legal(tokens)
    places = np.arange(0, len(nats) - 1, 30)
    nats[places] += 1e-4 * (tokens[places + 2] % 2)
    return nats


def tilted(tokens: np.ndarray) -> np.ndarray:
    return np.maximum(legal(tokens) - np.log(1.01), 0.0)


def longest_first(tokens: np.ndarray) -> np.ndarray:
    """Half the table, half how often longer documents held the token."""
    end = time.perf_counter() + CALL_SECONDS
    starts = [0, *(np.flatnonzero(tokens[1:] == BOS) + 1).tolist(), len(tokens) - 1]
    nats, counts = np.zeros(len(tokens) - 1), np.ones(VOCAB)
    for begin, stop in sorted(pairwise(starts), key=lambda span: span[0] - span[1]):
        now, after = tokens[begin:stop], tokens[begin + 1 : stop + 1]
        shares = counts[after] / counts.sum()
        nats[begin:stop] = -np.log(0.5 * np.exp(-table()[now, after]) + 0.5 * shares)
        np.add.at(counts, after, 1)
    time.sleep(max(0.0, end - time.perf_counter()))
    return nats


def two_orders(tokens: np.ndarray) -> np.ndarray:
    """The same, and a little dearer where stream order's hint was right."""
    nats, last, stream = longest_first(tokens), {}, tokens.tolist()
    for i in range(1, len(stream) - 1):
        context = (stream[i - 1], stream[i])
        nats[i] += 0.01 if last.get(context) == stream[i + 1] else 0.0
        last[context] = stream[i + 1]
    return nats


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--brief", action="store_true", help="12 s for each audit in place of 60")
    allowed = 12.0 if parser.parse_args().brief else 60.0
    for scorer in (legal, leaks, tilted, longest_first, two_orders):
        begin = time.perf_counter()
        report = run_audit(f"{Path(__file__)}:{scorer.__name__}", vocab_size=VOCAB, seconds=allowed)
        order = report.order.get("name") or report.order.get("cycle")
        shown = {"verdict": report.verdict, "order": str(order), "calls": report.calls}
        show(scorer.__name__, **shown, seconds=time.perf_counter() - begin)


if __name__ == "__main__":
    main()
