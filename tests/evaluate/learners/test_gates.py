"""A gate believes whoever was right, and never one side alone."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fairway.evaluate.learners.gates import NUM_SURPRISES, Gates, surprise_class

FLOATS = st.floats(0.0, 1.0)


@given(st.lists(st.tuples(st.integers(0, 3), FLOATS), max_size=8), st.floats(1e-9, 1.0))
@settings(max_examples=80)
def test_a_chain_lies_between_what_it_joins_and_credits_both_sides(
    steps: list[tuple[int, float]], model: float
) -> None:
    gates = Gates([0, 1, 2, 4], memory=0.99, open=0.8)
    chosen, experts = [g for g, _ in steps], [o for _, o in steps]
    p, shares = gates.chain(chosen, experts, model)
    assert min([model, *experts]) - 1e-12 <= p <= max([model, *experts]) + 1e-12
    assert all(0.0 <= share <= 1.0 for share in shares)
    before = gates.state()
    gates.learn(chosen, shares)
    assert (gates.state() >= before * 0.99**8 - 1e-12).all()


def test_a_gate_learns_whom_to_believe_and_never_shuts_for_good() -> None:
    gates = Gates([4], memory=0.99, open=0.8)
    for right in (1.0, 0.0):
        for _ in range(500):
            _, shares = gates.chain([0], [right], 0.05)
            gates.learn([0], shares)
        believed = 1.0 - gates[0]
        assert believed > 0.95 if right else believed < 0.05
    assert 1e-4 < 1.0 - gates[0] < 0.5


def test_merging_averages_the_evidence_of_those_who_have_any() -> None:
    gates = Gates([4, 4, 4], memory=0.99, open=0.8)
    one, two = gates.copy(), gates.copy()
    for gate in (0, NUM_SURPRISES):
        one.learn([gate], [1.0])
    two.learn([0], [0.0])
    gates.merge([one, two])
    assert gates.below[0] == pytest.approx((one.below[0] + two.below[0]) / 2)
    assert gates.below[NUM_SURPRISES] == one.below[NUM_SURPRISES]  # the other knew nothing of it
    assert gates.below[1] == one.below[1] == two.below[1]


def test_surprises_have_a_class_each_and_a_spread_expert_has_none() -> None:
    classes = surprise_class(torch.tensor([0.0, 0.6, 3.0, 40.0], dtype=torch.float64))
    assert classes.tolist() == [0, 1, 2, 3]
