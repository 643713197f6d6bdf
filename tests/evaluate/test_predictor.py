from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fairway.evaluate.bpb import Score
from fairway.evaluate.chunks import (
    Chunk,
    ChunkPlan,
    cut_chunk,
    plan_chunks,
    plan_documents,
    read_chunks,
)
from fairway.evaluate.frozen import Frozen
from fairway.evaluate.predictor import Reader, score_stream
from fairway.evaluate.window_batch import group_windows
from fairway.evaluate.windows import Window
from fairway.runtime.distributed import Ranks

from .models import CONTEXT, VOCAB, text, tiny_model, val_text

TOKENS, STARTS = text((21, 2, 30, 17, 9, 26))


class Recorder:
    """Stands in for a model and writes down the order in which it was asked things."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int]] = []

    def score(self, chunk: Chunk) -> Tensor:
        self.calls.append(("score", chunk.plan.index))
        return torch.zeros(chunk.num_targets, dtype=torch.float64)

    def learn(self, chunk: Chunk) -> None:
        self.calls.append(("learn", chunk.plan.index))

    def reader(self, plan: ChunkPlan) -> Reader:
        raise NotImplementedError

    def state_dict(self) -> dict[str, Tensor]:
        return {}

    def load_state_dict(self, state: object) -> None: ...


def test_a_chunk_is_learned_only_after_it_was_scored_and_booked() -> None:
    recorder = Recorder()
    plans = plan_chunks(len(TOKENS), CONTEXT, 4, 24)

    def on_chunk(chunk: Chunk, nats: Tensor) -> None:
        recorder.calls.append(("book", chunk.plan.index))

    chunks = read_chunks(plans, val_text(TOKENS))
    score = score_stream(recorder, chunks, on_chunk)
    wanted = [(verb, p.index) for p in plans for verb in ("score", "book", "learn")]
    assert recorder.calls == wanted
    assert score.num_tokens == score.num_bytes == len(TOKENS) - 1


def test_a_walk_that_goes_on_adds_to_what_was_booked() -> None:
    plans = plan_chunks(len(TOKENS), CONTEXT, 4, 24)
    chunks = list(read_chunks(plans, val_text(TOKENS)))
    whole = score_stream(Frozen(tiny_model()), chunks)
    booked = score_stream(Frozen(tiny_model()), chunks[:2])
    assert score_stream(Frozen(tiny_model()), chunks[2:], booked=booked) == whole


@given(st.integers(2, 400), st.integers(1, 6), st.integers(1, 20), st.integers(1, 8))
@settings(max_examples=60)
def test_a_chunk_owns_no_target_that_is_still_to_be_scored(
    num_tokens: int, stride: int, longer: int, strides: int
) -> None:
    plans = plan_chunks(num_tokens, stride + longer, stride, stride * strides)
    scored: list[int] = []
    for plan in plans:
        scored += [p for w in plan.windows for p in range(w.score_from, w.stop)]
        ((begin, end),) = plan.spans
        assert set(range(begin + 1, end)) <= set(scored)
    assert scored == list(range(1, num_tokens))
    owned = [p for plan in plans for begin, end in plan.spans for p in range(begin + 1, end)]
    assert owned == scored


@given(st.lists(st.integers(1, 60), min_size=1, max_size=9), st.integers(1, 4), st.integers(1, 8))
@settings(max_examples=60)
def test_documents_side_by_side_stay_in_file_order(
    lengths: list[int], rows: int, stride: int
) -> None:
    starts = [sum(lengths[:i]) for i in range(len(lengths))]
    plans = plan_documents(starts, sum(lengths), 8, stride, rows)
    scored = [p for plan in plans for w in plan.windows for p in range(w.score_from, w.stop)]
    assert sorted(scored) == list(range(1, sum(lengths)))
    for plan in plans:
        assert len(set(plan.rows)) == len(plan.rows)
        assert len({document // rows for document in plan.rows}) == 1
        for window, span in zip(plan.windows, plan.spans, strict=True):
            assert span == (window.score_from - 1, window.stop)
    for row in range(len(lengths)):
        own = [
            (w, e)
            for p in plans
            for r, w, e in zip(p.rows, p.windows, p.ends, strict=True)
            if r == row
        ]
        assert [ends for _, ends in own] == [False] * (len(own) - 1) + [True] * bool(own)
        assert all(a.stop == b.score_from for (a, _), (b, _) in pairwise(own))


def test_a_chunk_holds_copies_and_reaches_no_token_beyond_its_own() -> None:
    tokens = TOKENS.clone()
    chunk = cut_chunk(plan_chunks(len(tokens), CONTEXT, 4, 24)[1], val_text(tokens))
    before = [one.clone() for one in (*chunk.texts, *chunk.span_texts)]
    tokens.zero_()
    assert all(
        torch.equal(a, b) for a, b in zip(before, (*chunk.texts, *chunk.span_texts), strict=True)
    )
    last = max(window.stop for window in chunk.plan.windows)
    assert all(one.untyped_storage().nbytes() <= 8 * last for one in chunk.texts)


def test_the_last_layer_computes_only_what_counts_and_nothing_else_differs() -> None:
    """`start=` against a forward pass over everything."""
    model, tokens = tiny_model(), torch.randint(VOCAB, (3, CONTEXT))
    with torch.inference_mode():
        full = model(tokens)
        for start in (0, 5, CONTEXT - 1):
            assert torch.allclose(model(tokens, start=start), full[:, start:], atol=1e-5, rtol=0)


def test_padding_changes_no_nats() -> None:
    """Documents of unequal lengths share batches, and each is scored as in a batch of its own."""
    model = tiny_model()
    for plan in plan_documents(STARTS, len(TOKENS), CONTEXT, 4, 6):
        chunk = cut_chunk(plan, val_text(TOKENS))
        together, offsets = Frozen(model, rows=6).score(chunk), plan.offsets
        for i, (window, one) in enumerate(zip(plan.windows, chunk.texts, strict=True)):
            with torch.inference_mode():
                logits = model(one[None, :-1])[0, -window.num_targets :]
            alone = torch.nn.functional.cross_entropy(
                logits, one[-window.num_targets :], reduction="none"
            )
            assert torch.allclose(together[offsets[i] : offsets[i + 1]].float(), alone, atol=1e-5)


def test_windows_longer_than_the_training_context_are_not_padded() -> None:
    windows = [Window(0, 1, 1 + n) for n in (5, 9, 9, 30, 31, 30)]
    groups = group_windows(windows, range(6), rows=4, pad_to=16)
    assert groups == [(0, 1, 2), (3, 5), (4,)]


def test_ranks_share_the_windows_and_idle_ones_have_none() -> None:
    chunk = cut_chunk(plan_chunks(len(TOKENS), CONTEXT, 4, 24)[1], val_text(TOKENS))
    for world_size in (1, 2, 5, 40):
        members: list[int] = []
        for rank in range(world_size):
            predictor = Frozen(tiny_model(), rows=2, ranks=Ranks(rank, world_size))
            members += [i for one, _ in predictor.batches(chunk) for i in one.members]
        assert sorted(members) == list(range(len(chunk.texts)))


def test_chunks_that_cut_a_stride_are_refused() -> None:
    with pytest.raises(ValueError, match="chunk_tokens=30 is not a multiple of stride=4"):
        plan_chunks(100, 16, 4, 30)


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
