"""Evidence is gathered before its token is read, and lies in the order of the plan."""

import numpy as np

from fairway.evaluate.chunks import cut_chunk, plan_chunks, plan_documents
from fairway.evaluate.learners.evidence import gather_evidence, rows_of
from fairway.evaluate.learners.ngram import Memory

from ..models import CONTEXT, VOCAB, text, val_text

TOKENS, STARTS = text((21, 9, 17))


def new_memory() -> Memory:
    return Memory((0, 1, 2), fade=0.9, vocab_size=VOCAB)


def test_rows_are_the_documents_each_in_order() -> None:
    plan = plan_documents(STARTS, len(TOKENS), CONTEXT, 4, rows=3)[0]
    assert rows_of(plan) == {0: [0], 1: [1], 2: [2]}
    assert rows_of(plan_chunks(len(TOKENS), CONTEXT, 4, 24)[0]) == {0: [0, 1, 2]}


def test_evidence_is_that_of_a_memory_which_has_read_all_before() -> None:
    memory, twin = new_memory(), new_memory()
    for plan in plan_chunks(len(TOKENS), CONTEXT, 4, 24):
        chunk = cut_chunk(plan, val_text(TOKENS))
        found = gather_evidence(chunk, lambda row: memory)
        place = begin = 0
        for window, one in zip(plan.windows, chunk.texts, strict=True):
            first = len(one) - window.num_targets
            twin.stand_after(one[:first].tolist())
            for token in one[first:].tolist():
                says = [expert.probability(token) for expert in twin.experts()]
                assert len(says) == found.numbers[place]
                assert found.ahead[begin : begin + len(says)].tolist() == says
                twin.push(token)
                place, begin = place + 1, begin + len(says)
        assert place == plan.num_targets == len(found.numbers)
        assert len(found.kinds) == len(found.pointed) == len(found.ahead) == begin


def test_a_window_that_was_read_leaves_what_gathering_leaves() -> None:
    read, gathered = new_memory(), new_memory()
    plan = plan_chunks(len(TOKENS), CONTEXT, 4, len(TOKENS) // 4 * 4)[0]
    chunk = cut_chunk(plan, val_text(TOKENS))
    gather_evidence(chunk, lambda row: gathered)
    for window, one in zip(plan.windows, chunk.texts, strict=True):
        read.read(one, window.num_targets)
    again = [gather_evidence(chunk, lambda row, m=memory: m) for memory in (read, gathered)]
    for one, other in zip(*again, strict=True):
        assert np.array_equal(one, other)
