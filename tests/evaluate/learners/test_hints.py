"""Hints: those of the published table, and those that counting by hand gives."""

from collections import Counter, defaultdict
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fairway.evaluate.learners.hints import NONE, PlainHintMemory, trusted
from fairway.evaluate.learners.hints_compiled import new_hint_memory
from fairway.runtime.native import switched_off

TOKENS = st.lists(st.integers(0, 2), max_size=60)


@pytest.mark.parametrize("case", ["record", "order4"])
@pytest.mark.parametrize("compiled", [False, True])
def test_hints_are_the_published_ones(shared: Path, case: str, compiled: bool) -> None:
    golden = torch.load(shared / "vectors" / "tilt_pr2135.pt", weights_only=True)
    expected = golden[case]
    length = int(expected["settings"]["TOKEN_ORDER"]) - 1
    memory = new_hint_memory(length) if compiled else PlainHintMemory(length)
    found = memory.read(golden["tokens"][1:])
    assert torch.equal(found.tokens.clamp_min(0), expected["top_token"])
    assert torch.equal(found.confidence.float(), expected["top_prob"])
    hints = trusted(found, float(expected["settings"]["TOKEN_THRESHOLD"]))
    assert torch.equal(hints != NONE, expected["gate_mask"])
    assert torch.equal(hints.clamp_min(0), expected["hint_ids"])


@given(TOKENS, st.integers(1, 3))
def test_a_hint_is_what_followed_most_often_so_far(tokens: list[int], length: int) -> None:
    found = PlainHintMemory(length).read(torch.tensor(tokens, dtype=torch.long))
    followed: dict[tuple, list[int]] = defaultdict(list)
    text = [*tokens[:1], *tokens]  # the first also stands for the one before it
    for i, token in enumerate(tokens):
        context = tuple(text[max(0, i + 1 - length) : i + 1]) if i else ()
        before = followed[context]
        if len(context) < length or not before:
            assert (int(found.tokens[i]), float(found.confidence[i])) == (NONE, 0.0)
        else:
            counts = Counter(before)
            assert counts[int(found.tokens[i])] == max(counts.values())
            assert float(found.confidence[i]) == max(counts.values()) / len(before)
        before.append(token)


def test_of_two_as_frequent_the_earlier_one_stays_until_it_is_overtaken() -> None:
    memory = PlainHintMemory(1)
    memory.read(torch.tensor([7, 7, 1, 7, 2]))
    memory.stand_after([7])
    assert memory.expected() == (7, 1 / 3)  # as often as 1 and 2
    memory.push(1)
    memory.stand_after([7])
    assert memory.expected() == (1, 2 / 4)


def test_a_branch_leaves_no_trace_until_it_is_absorbed() -> None:
    memory, straight = PlainHintMemory(2), PlainHintMemory(2)
    first, second = torch.tensor([1, 2, 3, 1, 2]), torch.tensor([4, 1, 2, 4, 1, 2])
    memory.read(first)
    before = (dict(memory.contexts), dict(memory.pairs), memory.place())
    branch = memory.branch()
    straight.read(first)
    expected, read = straight.read(second), branch.read(second)
    assert all(torch.equal(one, other) for one, other in zip(read, expected, strict=True))
    assert (memory.contexts, memory.pairs, memory.place()) == before
    memory.absorb(branch)
    assert (memory.contexts, memory.pairs) == (straight.contexts, straight.pairs)
    assert memory.place() == straight.place()


def test_without_a_compiler_the_plain_form_serves() -> None:
    with switched_off():
        assert isinstance(new_hint_memory(3), PlainHintMemory)
