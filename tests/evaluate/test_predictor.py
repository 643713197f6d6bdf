import torch
from torch import Tensor

from fairway.evaluate.chunks import (
    Chunk,
    ChunkPlan,
    plan_chunks,
    read_chunks,
)
from fairway.evaluate.frozen import Frozen
from fairway.evaluate.predictor import Reader, score_stream

from .models import CONTEXT, text, tiny_model, val_text

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

    def skip(self, chunk: Chunk) -> None:
        self.calls.append(("skip", chunk.plan.index))

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
