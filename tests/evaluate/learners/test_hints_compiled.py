"""The compiled memory of hints is the plain one, whatever is done to it."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fairway.evaluate.learners.hints import HintMemory, PlainHintMemory
from fairway.evaluate.learners.hints_compiled import CompiledHintMemory, new_hint_memory
from fairway.runtime.native import explain, library

pytestmark = pytest.mark.skipif(library("hints") is None, reason=explain("hints"))
TOKENS = st.lists(st.integers(0, 3) | st.integers(0, 1 << 20), max_size=40)
STEPS = st.lists(st.tuples(st.sampled_from(["read", "branch", "absorb", "leave"]), TOKENS))


@given(STEPS, st.integers(1, 15))
def test_both_say_the_same(steps: list[tuple[str, list[int]]], length: int) -> None:
    plain, compiled = PlainHintMemory(length), new_hint_memory(length)
    assert isinstance(compiled, CompiledHintMemory)
    stack: list[tuple[HintMemory, HintMemory]] = [(plain, compiled)]
    for what, values in steps:
        one, other = stack[-1]
        if what == "branch":
            stack.append((one.branch(), other.branch()))
        elif what == "absorb" and len(stack) > 1:
            stack.pop()
            stack[-1][0].absorb(one)
            stack[-1][1].absorb(other)
        elif what == "leave":
            one.stand_after(values)
            other.stand_after(values)
        tokens = torch.tensor(values, dtype=torch.long)
        read = stack[-1][0].read(tokens), stack[-1][1].read(tokens)
        assert all(torch.equal(a, b) for a, b in zip(*read, strict=True))
        assert stack[-1][0].place() == stack[-1][1].place()
        assert stack[-1][0].expected() == stack[-1][1].expected()


def test_tables_grow_without_losing_anything_and_say_what_they_take() -> None:
    tokens = torch.randint(0, 5000, (20_000,), generator=torch.Generator().manual_seed(0))
    memory = new_hint_memory(15)
    assert isinstance(memory, CompiledHintMemory)
    assert bool((memory.read(tokens).tokens == -1).all())
    memory.stand_after([])
    again = memory.read(tokens)
    assert torch.equal(again.tokens[14:], tokens[14:])
    assert bool((again.confidence[14:] == 1).all())
    assert memory.num_bytes == 32_768 * (20 + 12)
