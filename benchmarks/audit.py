"""How long auditing takes, and how small a fault it finds, at 5 ms a call and V = 1,024. By hand.

    python benchmarks/audit.py [--brief]

A legal scorer, one that leaks 1e-4 nats of a later token at one position in thirty, and one whose
distributions sum to 1.01.
"""

import argparse
import functools
import time
from pathlib import Path

import numpy as np
from measuring.rows import show

from fairway.audit import run_audit

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--brief", action="store_true", help="12 s for each audit in place of 60")
    allowed = 12.0 if parser.parse_args().brief else 60.0
    for scorer in (legal, leaks, tilted):
        begin = time.perf_counter()
        report = run_audit(f"{Path(__file__)}:{scorer.__name__}", vocab_size=VOCAB, seconds=allowed)
        show(scorer.__name__, verdict=report.verdict, seconds=time.perf_counter() - begin)


if __name__ == "__main__":
    main()
