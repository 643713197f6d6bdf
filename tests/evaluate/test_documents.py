"""Every target belongs to one document, in whatever order it was scored."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from fairway.evaluate.chunks import ChunkPlan, plan_chunks, plan_documents
from fairway.evaluate.documents import DocumentNats
from fairway.tokens.val_text import ValText

STARTS, NUM_TOKENS = (0, 5, 6, 40), 75
PLANS = {
    "one stream": plan_chunks(NUM_TOKENS, 16, 8, 16),
    "apart, in the file's order": plan_documents(STARTS, NUM_TOKENS, 16, 8, 2),
    "apart, the longest first": plan_documents(STARTS, NUM_TOKENS, 16, 8, 2, "longest_first"),
}


def costs(plan: ChunkPlan) -> torch.Tensor:
    """Each target costs its own position, so that a wrong place shows."""
    places = [t for w in plan.windows for t in range(w.score_from, w.stop)]
    return torch.tensor(places, dtype=torch.float64)


def text(starts: tuple[int, ...] = STARTS) -> ValText:
    return ValText(torch.zeros(NUM_TOKENS).long(), torch.arange(NUM_TOKENS - 1), starts)


@pytest.mark.parametrize("plans", PLANS.values(), ids=PLANS)
def test_each_target_is_booked_on_the_document_it_ends_or_lies_in(plans: list[ChunkPlan]) -> None:
    found = DocumentNats(STARTS)
    for plan in plans:
        found.add(plan, costs(plan))
    edges = [*STARTS, NUM_TOKENS - 1]
    wanted = [sum(range(first + 1, last + 1)) for first, last in pairwise(edges)]
    assert found.nats.tolist() == wanted


def test_tokens_and_bytes_add_up_to_the_text() -> None:
    tokens, num_bytes = DocumentNats(STARTS).sizes(text())
    assert tokens.tolist() == [5, 1, 34, 34]
    assert num_bytes.sum() == sum(range(NUM_TOKENS - 1))
    assert num_bytes[0] == 0 + 1 + 2 + 3 + 4


def test_what_precedes_the_first_bos_is_a_document_too() -> None:
    tokens, _ = DocumentNats((3, 10)).sizes(text((3, 10)))
    assert tokens.tolist() == [3, 7, 64]
    assert np.array_equal(DocumentNats(()).sizes(text(()))[0], [NUM_TOKENS - 1])
