"""An order is a permutation that comes back, and costs what the count of its alternatives says."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fairway.audit.scoring_order import (
    ScoringOrder,
    document_starts,
    length_bits,
    permutation_bits,
    tie_bits,
)

TOKENS = np.array([1, 5, 6, 1, 7, 8, 9, 1, 4])  # documents of 3, 4 and 2 tokens


@given(st.lists(st.integers(0, 3), min_size=2, max_size=40), st.randoms())
def test_any_order_rearranges_and_restores(ids: list[int], random) -> None:
    tokens = np.array(ids)
    documents = list(range(len(document_starts(tokens))))
    random.shuffle(documents)
    cut = random.randint(0, len(documents))
    batches = [part for part in (documents[:cut], documents[cut:]) if part]
    order = ScoringOrder.of(tokens, batches)
    assert sorted(order.places.tolist()) == list(range(len(tokens)))
    assert np.array_equal(order.restore(order.arrange(tokens)), tokens)


def test_nats_follow_their_tokens_and_marks_are_told() -> None:
    order = ScoringOrder.of(TOKENS, [[1], [2], [0]])
    assert order.arrange(TOKENS).tolist() == [1, 7, 8, 9, 1, 4, 1, 5, 6]
    nats = np.arange(1.0, 9.0)  # of the token at that place
    assert order.arrange_nats(nats).tolist() == [4, 5, 6, 0, 8, 0, 1, 2]
    assert order.arrange_nats(nats[:5]).size == 5


def test_documents_in_step_go_token_by_token() -> None:
    order = ScoringOrder.of(TOKENS, [[0, 1], [2]])
    assert order.places.tolist() == [0, 3, 1, 4, 2, 5, 6, 7, 8]


def test_what_telling_costs() -> None:
    assert math.isclose(permutation_bits(4), math.log2(24))
    assert math.isclose(length_bits(9, 3), math.log2(math.comb(8, 2)))
    keys = {0: 5, 1: 5, 2: 5, 3: 9}
    assert tie_bits(keys, [0, 1, 2, 3]) == tie_bits(keys, [2, 1, 0, 3]) == 0
    assert math.isclose(tie_bits(keys, [1, 0, 2, 3]), math.log2(6))


def test_an_order_that_lengths_decide_costs_the_lengths() -> None:
    places = np.array([0, 4, 5, 6, 7, 8, 1, 2, 3])  # each document's last target is the next mark
    order = ScoringOrder.of_lengths(TOKENS, places, "longest first")
    assert order.batches == ((1,), (2,), (0,))
    assert order.bits == order.length_bits == length_bits(9, 3)
    assert order.to_json()["documents"] == 3
    nats = np.arange(1.0, 9.0)
    assert order.arrange_nats(nats).tolist() == [4, 5, 6, 0, 8, 1, 2, 0]
