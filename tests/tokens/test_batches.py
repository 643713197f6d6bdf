import itertools
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch

from fairway.tokens.batches import Batches, OrderConfig

STREAM = np.arange(1000, dtype=np.uint16)


def rows(order: Any = "shuffled", stream: np.ndarray = STREAM, **changes: int) -> Batches:
    options = {"rows": 4, "context": 16} | changes
    return Batches(stream, OrderConfig(order=order), **options)


@pytest.mark.parametrize("order", ["sequential", "shuffled", "coprime"])
def test_an_epoch_visits_each_row_once(order: str) -> None:
    batches = rows(order=order, rows=1)
    starts = [int(next(batches).tokens[0, 0]) for _ in range(batches.rows_per_epoch)]
    assert max(Counter(starts).values()) == 1
    assert {(b - a) % 16 for a, b in itertools.pairwise(starts)} == {0}


@pytest.mark.parametrize("order", ["sequential", "shuffled", "coprime"])
def test_one_integer_resumes_the_order(order: str) -> None:
    whole = rows(order=order)
    skipped = [next(whole) for _ in range(40)][33]
    assert torch.equal(next(rows(order=order, position=33)).tokens, skipped.tokens)


def test_ranks_share_out_the_same_global_batch() -> None:
    whole = next(rows()).tokens
    parts = [next(rows(rank=r, world_size=2)).tokens for r in range(2)]
    assert torch.equal(torch.stack(parts, 1).flatten(0, 1), whole)


def test_targets_are_one_token_on() -> None:
    batch = next(rows())
    assert torch.equal(batch.targets[:, :-1], batch.tokens[:, 1:])


def test_packed_rows_begin_at_documents() -> None:
    stream = STREAM.copy() % 50 + 2
    stream[::70] = 1
    batches = rows(stream=stream, order="packed")
    assert all(bool((next(batches).tokens[:, 0] == 1).all()) for _ in range(9))


def test_a_text_shorter_than_a_context_says_so() -> None:
    with pytest.raises(ValueError, match="less than one context"):
        rows(stream=STREAM[:16])
    with pytest.raises(ValueError, match="do not divide"):
        rows(rows=3, world_size=2)
