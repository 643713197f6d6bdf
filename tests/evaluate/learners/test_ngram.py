import math
import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairway.evaluate.learners.ngram import Memory, age_class, number_class

ORDERS = (0, 1, 2, 4)


def remember(tokens: list[int], orders: tuple[int, ...] = ORDERS, vocab_size: int = 50) -> Memory:
    memory = Memory(orders, 30.0, vocab_size)
    memory.stand_after([])
    for token in tokens:
        memory.push(token)
    return memory


@given(st.lists(st.integers(0, 6), min_size=1, max_size=60))
@settings(max_examples=60)
def test_every_expert_is_a_distribution_over_the_vocabulary(tokens: list[int]) -> None:
    memory = remember(tokens)
    kinds = memory.orders_of_kinds()
    for expert in memory.experts():
        added = np.zeros(50)
        expert.add_to(added, 0.5)
        assert added.min() >= 0
        assert added.sum() == pytest.approx(0.5, abs=1e-12)
        assert [expert.probability(v) for v in range(50)] == pytest.approx((added * 2).tolist())
        assert 0 <= expert.kind < len(kinds)


def test_what_is_counted_has_occurred_and_nothing_collides() -> None:
    """Two contexts that a hash could confuse never are: the key is the context."""
    rng = random.Random(0)
    tokens = [rng.randrange(70_000) for _ in range(3000)]
    memory = remember(tokens, orders=(2,), vocab_size=70_000)
    follow = Counter(zip(tokens, tokens[1:], tokens[2:], strict=False))
    for a, b, c in list(follow)[:500]:
        memory.stand_after([a, b])
        counts = memory.experts()[0]
        assert counts.probability(c) > 0
        assert counts.probability((c + 1) % 70_000) == 0
    memory.stand_after([tokens[1], tokens[0]])
    assert memory.experts() == []


def test_the_newest_successor_speaks_last_and_for_itself() -> None:
    memory = remember([7, 8, 7, 9, 7])
    experts = [o for o in memory.experts() if o.pointed >= 0]
    assert [o.pointed for o in experts][-1] == 9
    assert experts[-1].probability(9) == 1.0
    assert experts[-1].probability(8) == 0.0


def test_short_contexts_count_only_what_longer_ones_did_not_expect() -> None:
    """After 5 comes 6, again and again: order 0 learns once of 6, for order 1 explains the rest."""
    memory = remember([5, 6] * 10, orders=(0, 1))
    order0 = memory._context(b"")
    assert order0 is not None
    assert isinstance(order0.counts, dict)
    assert order0.counts[6] <= 2
    memory.stand_after([5])
    assert memory.experts()[-1].probability(6) == 1.0


def test_recent_successors_fade_and_never_overflow() -> None:
    memory = remember([3] * 5 + [4] * 5 + [2], orders=(0,))
    recent = memory.experts()[1]
    assert recent.probability(4) > recent.probability(3) > 0
    for _ in range(30_000):  # a thousand lifetimes: e**1000 is no float
        memory.push(2)
    recent = memory.experts()[1]
    assert recent.probability(2) == pytest.approx(1.0)
    assert sum(recent.probability(v) for v in range(50)) == pytest.approx(1.0)


def test_a_branch_knows_what_its_parent_knew_and_tells_it_nothing() -> None:
    tokens = [5, 6, 7, 5, 6, 8, 5, 6]
    parent, apart = remember(tokens), remember(tokens)
    branch = parent.branch()
    branch.stand_after(tokens)
    for token in (7, 5, 6, 9, 5, 6):
        branch.push(token)
        apart.push(token)
    assert branch.experts() == apart.experts()
    parent.stand_after(tokens)
    assert parent.experts() == _standing(remember(tokens), tokens).experts()
    twig = branch.branch()
    twig.stand_after([5, 6])
    assert [o.counts for o in twig.experts()] == [
        o.counts for o in _standing(branch, [5, 6]).experts()
    ]


def _standing(memory: Memory, history: list[int]) -> Memory:
    memory.stand_after(history)
    return memory


def test_contexts_reach_no_further_back_than_the_history_shown() -> None:
    memory = remember([1, 2, 3, 4, 9, 1, 2, 3, 4])
    memory.stand_after([4])
    assert len(memory.keys) == 2  # orders 0 and 1
    memory.stand_after([])
    assert len(memory.keys) == 1


def test_classes_rise_and_stay_within_bounds() -> None:
    numbers = [number_class(n) for n in range(200)]
    assert numbers == sorted(numbers)
    assert max(numbers) == 7
    ages = [age_class(a) for a in range(10_000)]
    assert ages == sorted(ages)
    assert set(ages) == set(range(5))


def test_pushing_takes_microseconds() -> None:
    """Order of growth, not speed: ten times the text, about ten times the contexts."""
    rng = random.Random(0)
    sizes = [len(remember([rng.randrange(20) for _ in range(n)]).contexts) for n in (300, 3000)]
    assert sizes[1] / sizes[0] < 12
    assert math.isfinite(sizes[1])
