import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fairway.model.segments import document_segments, places_in_parts
from fairway.tokens.batches import Batches, OrderConfig
from fairway.tokens.shards import TokenStream

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


@pytest.mark.parametrize("run", ["world1_rank0", "world2_rank0", "world2_rank1"])
def test_documents_are_packed_as_published(run: str, shared: Path) -> None:
    """Where each micro-batch of #1855 begins, and where attention restarts within it."""
    golden = torch.load(shared / "vectors" / "loader_pr1855.pt", weights_only=True)
    shards = [shard.numpy().astype(np.uint16) for shard in golden["shards"]]
    context, wanted = golden["context"], golden["runs"][run]
    world, rank = int(run[5]), int(run[-1])
    order = OrderConfig(order="documents", together=world)
    rows = golden["row_tokens"] // context
    batches = Batches(TokenStream(shards), order, rows=rows, context=context)
    for number, (shard, start) in enumerate(zip(wanted["shard"], wanted["start"], strict=True)):
        batch = batches.at(number * world + rank)
        text = shards[int(shard)][int(start) :][: golden["row_tokens"] + 1].astype(np.int64)
        assert batch.tokens.flatten().tolist() == text[:-1].tolist()
        assert batch.targets.flatten().tolist() == text[1:].tolist()
        parts = document_segments(batch.tokens.flatten(), golden["bos_id"], longest=context)
        theirs = wanted["cu_seqlens"][number].tolist()
        assert [begin for begin, _ in parts] + [golden["row_tokens"]] == theirs
        assert max(end - begin for begin, end in parts) == wanted["max_seqlen"][number]
        places = places_in_parts(batch.tokens.flatten() == golden["bos_id"], context)
        assert (places == 0).nonzero().flatten().tolist() == theirs[:-1]


def test_documents_use_every_token_once_and_any_rank_sees_its_share() -> None:
    stream = STREAM + 1  # begins with BOS
    batches = rows(order="documents", stream=stream, rows=4, context=8)
    seen = torch.cat([batches.at(i).tokens.flatten() for i in range(1000 // 33)])
    assert len(seen.unique()) == len(seen) == 1000 // 33 * 32
    halves = [
        Batches(stream, OrderConfig(order="documents"), rows=4, context=8, rank=r, world_size=2)
        for r in (0, 1)
    ]
    assert torch.equal(halves[1].at(3).tokens, batches.at(3).tokens[1::2])
    with pytest.raises(ValueError, match=r"no shard has the 2,640 tokens of 80 batches"):
        Batches(stream, OrderConfig(order="documents", together=80), rows=4, context=8)


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
