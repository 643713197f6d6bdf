"""What enters the first block: hashes, smearing, value embeddings."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fairway.model.embedding import (
    HASH_MULTIPLIERS,
    NgramTable,
    NgramTableConfig,
    SmearV1,
    SmearV2,
    ngram_hash,
    shift_right,
)

IDS = st.lists(st.integers(0, 2**16 - 1), min_size=3, max_size=20)


@given(IDS, st.integers(2, 3), st.integers(3, 5000))
@settings(max_examples=50, deadline=None)
def test_the_hash_is_the_published_one_in_wrapping_int32(
    ids: list[int], order: int, buckets: int
) -> None:
    got = ngram_hash(torch.tensor([ids]), order, buckets)[0]
    with np.errstate(over="ignore"):
        words = [np.array(ids, np.int32) * np.int32(m) for m in HASH_MULTIPLIERS]
    for i in range(len(ids)):
        if i < order - 1:
            assert got[i] == buckets - 1
        else:
            mixed = np.int32(0)
            for back in range(order):
                mixed = np.bitwise_xor(mixed, words[back][i - back])
            assert got[i] == int(mixed) % (buckets - 1)


def test_buckets_never_change() -> None:
    """Golden numbers: if this fails, every table already trained means nothing."""
    ids = torch.tensor([[1, 2, 3, 8191, 65535]])
    assert ngram_hash(ids, 2, 2048).tolist() == [[2047, 435, 1556, 1086, 433]]
    assert ngram_hash(ids, 3, 100).tolist() == [[99, 99, 12, 68, 79]]


@given(IDS, st.integers(2, 3))
@settings(max_examples=20, deadline=None)
def test_a_bucket_depends_on_the_last_tokens_only(ids: list[int], order: int) -> None:
    bucket = ngram_hash(torch.tensor([ids]), order, 97)
    longer = ngram_hash(torch.tensor([[5, 7, *ids]]), order, 97)
    assert torch.equal(bucket[:, order - 1 :], longer[:, order + 1 :])


def test_a_table_gives_the_newest_positions_what_the_whole_gives_them() -> None:
    table = NgramTable(NgramTableConfig(buckets=31, dim=4), 8)
    torch.nn.init.normal_(table.table.weight)
    ids = torch.randint(0, 60, (2, 9))
    whole = table(ids, 9, torch.float32)
    # Close, not equal: processors round a product of fewer rows in another order.
    torch.testing.assert_close(table(ids, 3, torch.float32), whole[:, 6:], rtol=1e-6, atol=1e-8)


def test_shifting_fills_the_first_place_with_what_came_before() -> None:
    x, before = torch.randn(2, 4, 3), torch.randn(2, 1, 3)
    assert torch.equal(shift_right(x, before), torch.cat((before, x[:, :-1]), 1))
    assert torch.equal(shift_right(x, None)[:, 0], torch.zeros(2, 3))


def test_smear_v1_mixes_by_channel() -> None:
    smear, x = SmearV1(3), torch.randn(1, 4, 3)
    with torch.no_grad():
        smear.gate.copy_(torch.tensor([-100.0, 0.0, 100.0]))
        y, previous = smear(x, None), shift_right(x, None)
    assert torch.allclose(y[..., 0], x[..., 0])
    assert torch.allclose(y[..., 1], (x + previous)[..., 1] / 2)
    assert torch.allclose(y[..., 2], previous[..., 2])


def test_smear_v2_stops_at_a_document_and_starts_as_nothing() -> None:
    smear, x = SmearV2(2), torch.randn(1, 4, 3)
    same_document = torch.tensor([[False, True, False, True]])
    assert torch.equal(smear(x, None, same_document), x)
    with torch.no_grad():
        smear.strength.fill_(1.0)
        moved = (smear(x, None, same_document) - x).abs().sum(-1)[0] > 0
    assert moved.tolist() == [False, True, False, True]


@pytest.mark.parametrize("config", [{"order": 4}, {"order": 1}, {"buckets": 1}])
def test_a_table_that_cannot_be_is_refused(config: dict) -> None:
    with pytest.raises(ValueError, match=r"order|buckets"):
        NgramTableConfig(**config)
