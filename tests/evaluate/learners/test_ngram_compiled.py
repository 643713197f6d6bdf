"""The compiled memory is the plain one, bit for bit, whatever is done to it."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fairway.evaluate.config import make_predictor
from fairway.evaluate.learners.gates import NUM_SURPRISES, Gates
from fairway.evaluate.learners.ngram import Memory, NgramMemory, Says
from fairway.evaluate.learners.ngram_compiled import CompiledMemory, new_memory
from fairway.runtime.native import explain, library, switched_off, untuned

from ..models import CONFIGS, chunks_of, nats_in_order, text, tiny_model

ORDERS, FADE, VOCAB = (0, 1, 2, 4), 3.0, 30
pytestmark = pytest.mark.skipif(library("ngram") is None, reason=explain("ngram"))

TOKENS = st.lists(st.integers(0, 4) | st.integers(0, VOCAB - 1), min_size=1, max_size=80)
# A window: how its tokens lie among earlier text, and on which memory it is read.
WINDOWS = st.lists(st.tuples(TOKENS, st.integers(1, 80), st.booleans()), min_size=1, max_size=6)


def both(orders: tuple[int, ...] = ORDERS, fade: float = FADE) -> list[NgramMemory]:
    compiled = new_memory(orders, fade, VOCAB)
    assert isinstance(compiled, CompiledMemory)
    return [Memory(orders, fade, VOCAB), compiled]


def assert_same(plain: Says, compiled: Says) -> None:
    for one, other in zip(plain, compiled, strict=True):
        assert np.array_equal(one, other)


def assert_same_suggestions(memories: list[NgramMemory]) -> None:
    model = np.random.default_rng(0).dirichlet(np.ones(VOCAB))
    found = []
    for memory in memories:
        kinds, pointed = memory.suggestions()
        kept = 1.0 / (2.0 + np.arange(len(kinds)))
        ahead = [memory.ahead(token) for token in range(VOCAB)]
        found.append((kinds, pointed, *ahead, memory.join(kept, model)))
    for one, other in zip(*found, strict=True):
        assert np.array_equal(one, other)


@given(WINDOWS)
@settings(max_examples=150, deadline=None)
def test_it_says_what_the_plain_one_says(windows: list) -> None:
    memories = both()
    for tokens, num_targets, is_read in windows:
        one, targets = torch.tensor(tokens), min(num_targets, len(tokens))
        if is_read:
            for memory in memories:
                memory.read(one, targets)
        else:
            assert_same(*(memory.gather(one, targets) for memory in memories))
        assert_same_suggestions(memories)


@given(WINDOWS)
@settings(max_examples=150, deadline=None)
def test_branches_of_branches_and_what_is_absorbed_are_the_same(windows: list) -> None:
    memories = both()
    for tokens, num_targets, is_absorbed in windows:
        one, targets = torch.tensor(tokens), min(num_targets, len(tokens))
        branches = [memory.branch() for memory in memories]
        assert_same(*(branch.gather(one, targets) for branch in branches))
        twigs = [branch.branch() for branch in branches]
        for place in (-1, 0):
            assert_same(*(twig.gather(one.roll(place), targets) for twig in twigs))
        for branch, twig in zip(branches, twigs, strict=True):
            branch.absorb(twig)
        assert_same_suggestions(branches)
        for memory, branch in zip(memories, branches, strict=True):
            if is_absorbed:
                memory.absorb(branch)
            memory.stand_after(tokens)
        assert_same_suggestions(memories)


def test_thousands_of_successors_are_found_and_recent_ones_never_overflow() -> None:
    rng = np.random.default_rng(0)
    tokens = torch.from_numpy(rng.permutation(VOCAB).repeat(40)[: 30 * VOCAB])
    memories = both(fade=0.5)
    assert_same(*(memory.gather(tokens, len(tokens)) for memory in memories))
    assert_same_suggestions(memories)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_gates_mix_and_learn_the_same(seed: int) -> None:
    rng = np.random.default_rng(seed)
    numbers = rng.integers(0, 9, 50)
    n = int(numbers.sum())
    says = Says(numbers, np.zeros(n, np.int64), rng.random(n) * (rng.random(n) < 0.7), numbers)
    chosen, model = rng.integers(0, 4 * NUM_SURPRISES, n), rng.random(50) + 1e-9
    compiled = Gates([0, 1, 2, 4], memory=0.99, open=0.8)
    plain = compiled.copy()
    found = compiled.mix(says, chosen, model)
    with switched_off():
        assert np.array_equal(plain.mix(says, chosen, model), found)
    assert torch.equal(plain.state(), compiled.state())


@pytest.mark.parametrize("name", [name for name in CONFIGS if "mixture" in name])
def test_every_mixture_scores_the_same(name: str) -> None:
    tokens, starts = text([60, 50, 13])
    chunks = chunks_of(CONFIGS[name], tokens, starts)
    model = tiny_model()

    def nats() -> list[torch.Tensor]:
        return nats_in_order(make_predictor(copy.deepcopy(model), CONFIGS[name]), chunks)

    with untuned():  # kernels of lessons round otherwise than their plain forms
        with switched_off():
            plain = nats()
        assert all(map(torch.equal, plain, nats()))
