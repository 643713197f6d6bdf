"""A model that stays as it is: shared among ranks, exact where it cuts corners."""

import pytest
import torch

from fairway.evaluate.bpb import Score
from fairway.evaluate.chunks import (
    cut_chunk,
    plan_chunks,
    read_chunks,
)
from fairway.evaluate.frozen import Frozen
from fairway.evaluate.predictor import score_stream
from fairway.runtime.distributed import Ranks

from .models import CONTEXT, VOCAB, text, tiny_model, val_text

TOKENS, STARTS = text((21, 2, 30, 17, 9, 26))


def test_the_last_layer_computes_only_what_counts_and_nothing_else_differs() -> None:
    """`start=` against a forward pass over everything."""
    model, tokens = tiny_model(), torch.randint(VOCAB, (3, CONTEXT))
    with torch.inference_mode():
        full = model(tokens)
        for start in (0, 5, CONTEXT - 1):
            assert torch.allclose(model(tokens, start=start), full[:, start:], atol=1e-5, rtol=0)


def test_ranks_share_the_windows_and_idle_ones_have_none() -> None:
    chunk = cut_chunk(plan_chunks(len(TOKENS), CONTEXT, 4, 24)[1], val_text(TOKENS))
    for world_size in (1, 2, 5, 40):
        members: list[int] = []
        for rank in range(world_size):
            predictor = Frozen(tiny_model(), rows=2, ranks=Ranks(rank, world_size))
            members += [i for one, _ in predictor.batches(chunk) for i in one.members]
        assert sorted(members) == list(range(len(chunk.texts)))


def test_reading_before_starting_says_what_to_do() -> None:
    reader = Frozen(tiny_model()).reader(plan_chunks(50, CONTEXT, 4, 24)[0])
    with pytest.raises(ValueError, match="call start"):
        reader.log_probs()


def test_scores_are_float64_sums() -> None:
    plans = plan_chunks(len(TOKENS), CONTEXT, 4, 24)
    score = score_stream(Frozen(tiny_model()), read_chunks(plans, val_text(TOKENS)))
    assert isinstance(score, Score)
    parts = [Frozen(tiny_model()).score(c) for c in read_chunks(plans, val_text(TOKENS))]
    assert all(part.dtype == torch.float64 for part in parts)
    assert score.nats == sum(part.sum().item() for part in parts)
