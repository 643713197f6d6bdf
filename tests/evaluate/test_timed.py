import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fairway.evaluate.chunks import Chunk, read_chunks
from fairway.evaluate.config import make_predictor
from fairway.evaluate.frozen import Frozen
from fairway.evaluate.predictor import Predictor, score_stream
from fairway.evaluate.timed import (
    CheckpointConfig,
    Clocked,
    Evaluation,
    LearnsUntil,
    evaluate_in_time,
)

from .models import CONFIGS, plans_of, text, tiny_model, val_text

TOKENS, STARTS = text((40, 50, 40))
SGD = CONFIGS["sgd"]
PLANS = plans_of(SGD, TOKENS, STARTS)


class FakeClock:
    """Shows a time that only the fake predictor moves."""

    def __init__(self) -> None:
        self.time = 100.0

    def __call__(self) -> float:
        return self.time


class Slow(LearnsUntil):
    """Takes seconds of a fake clock: so many per token scored, so many per lesson."""

    def __init__(
        self, inner: Predictor, clock: FakeClock, per_target: float, lesson: float
    ) -> None:
        super().__init__(inner, 10**9)
        self.clock, self.per_target, self.lesson = clock, per_target, lesson
        self.lessons: list[int] = []

    def score(self, chunk: Chunk) -> Tensor:
        self.clock.time += self.per_target * chunk.num_targets
        return super().score(chunk)

    def learn(self, chunk: Chunk) -> None:
        self.clock.time += self.lesson
        self.lessons.append(chunk.plan.index)
        super().learn(chunk)


def timed(budget: float | None, per_target: float, lesson: float) -> tuple[Evaluation, Slow]:
    clock = FakeClock()
    slow = Slow(make_predictor(tiny_model(), SGD), clock, per_target, lesson)
    found = evaluate_in_time(slow, PLANS, val_text(TOKENS), budget_seconds=budget, now=clock)
    return found, slow


def test_without_a_budget_it_is_the_walk_and_nothing_else() -> None:
    found, slow = timed(None, 1.0, 1000.0)
    chunks = read_chunks(PLANS, val_text(TOKENS))
    assert found.score == score_stream(make_predictor(tiny_model(), SGD), chunks)
    assert found.learned_chunks == found.num_chunks == len(PLANS)
    assert found.note is None
    assert slow.lessons == list(range(len(PLANS) - 1))


def test_learning_stops_while_there_is_time_to_score_the_rest() -> None:
    targets = len(TOKENS) - 1
    for lessons in (1, 2, 4):
        budget = 1.05 * targets + 50.0 * lessons + 5.0
        found, slow = timed(budget, 1.0, 50.0)
        assert found.seconds <= budget
        assert found.score.num_tokens == targets
        assert slow.lessons == list(range(found.learned_chunks))
        assert found.learned_chunks == lessons
        assert f"from chunk {lessons + 1} of {len(PLANS)}" in (found.note or "")


def test_even_a_hopeless_budget_ends_with_a_score_and_says_so() -> None:
    found, slow = timed(10.0, 1.0, 50.0)
    assert found.score.num_tokens == len(TOKENS) - 1
    assert slow.lessons == []
    assert found.learned_chunks == 0
    over = dataclasses.replace(found, learned_chunks=found.num_chunks)
    assert "choose a larger one" in (over.note or "")


def test_a_decoder_follows_the_schedule_that_the_clock_decided() -> None:
    found, _ = timed(1.05 * len(TOKENS) + 105.0, 1.0, 50.0)
    again = evaluate_in_time(
        make_predictor(tiny_model(), SGD),
        PLANS,
        val_text(TOKENS),
        learned_chunks=found.learned_chunks,
    )
    assert 0 < found.learned_chunks < len(PLANS)
    assert again.score == found.score
    follower = LearnsUntil(make_predictor(tiny_model(), SGD), found.learned_chunks)
    assert score_stream(follower, read_chunks(PLANS, val_text(TOKENS))) == found.score


def test_a_lesson_known_to_be_long_is_not_begun_too_late() -> None:
    clock = FakeClock()
    slow = Slow(make_predictor(tiny_model(), SGD), clock, 1.0, 500.0)
    budget = 1.05 * len(TOKENS) + 400.0
    found = evaluate_in_time(
        slow, PLANS, val_text(TOKENS), budget_seconds=budget, lesson_seconds=500.0, now=clock
    )
    assert found.learned_chunks == 0
    assert found.seconds < budget


class Killed(Exception):
    pass


@pytest.mark.parametrize("name", ["sgd", "phased", "mixture of sgd", "mixture of adapters"])
def test_a_killed_evaluation_goes_on_from_its_last_chunk_with_the_same_result(
    name: str, tmp_path: Path
) -> None:
    config, tokens, starts = CONFIGS[name], *text((40, 50, 40))
    plans = plans_of(config, tokens, starts)
    whole = evaluate_in_time(make_predictor(tiny_model(), config), plans, val_text(tokens))
    checkpoint = CheckpointConfig(path=tmp_path / "evaluation", every_seconds=0.0)

    def die_at(number: int):
        def on_chunk(chunk: Chunk, nats: Tensor) -> None:
            if chunk.plan.index == number:
                raise Killed

        return on_chunk

    for number in (2, 2, 4):
        with pytest.raises(Killed):
            evaluate_in_time(
                make_predictor(tiny_model(), config),
                plans,
                val_text(tokens),
                checkpoint=checkpoint,
                on_chunk=die_at(number),
            )
    scored: list[int] = []
    resumed = evaluate_in_time(
        make_predictor(tiny_model(), config),
        plans,
        val_text(tokens),
        checkpoint=checkpoint,
        on_chunk=lambda chunk, nats: scored.append(chunk.plan.index),
    )
    assert scored == list(range(4, len(plans)))
    assert resumed.score == whole.score
    assert resumed.curve.nats == whole.curve.nats
    assert len(resumed.curve.learn_seconds) == len(plans)
    assert not list(tmp_path.iterdir())  # nothing is left to go on with


def test_a_checkpoint_of_another_text_is_refused(tmp_path: Path) -> None:
    checkpoint = CheckpointConfig(path=tmp_path / "evaluation", every_seconds=0.0)

    def die(chunk: Chunk, nats: Tensor) -> None:
        if chunk.plan.index:
            raise Killed

    def run(tokens: Tensor) -> None:
        evaluate_in_time(
            Frozen(tiny_model()), PLANS, val_text(tokens), checkpoint=checkpoint, on_chunk=die
        )

    with pytest.raises(Killed):
        run(TOKENS)
    other = TOKENS.clone()
    other[50] += 1
    with pytest.raises(ValueError, match=r"another evaluation \(text and plan .*; delete it"):
        run(other)


def test_the_clock_counts_what_an_interrupted_run_has_spent() -> None:
    clock = FakeClock()
    clocked = Clocked(Frozen(tiny_model()), 5, total_targets=10, spent_seconds=30.0, now=clock)
    clock.time += 2.0
    assert clocked.spent_seconds == 32.0


def test_the_curve_has_the_seconds_of_every_chunk() -> None:
    found, _ = timed(None, 1.0, 7.0)
    assert found.curve.score_seconds == [float(plan.num_targets) for plan in PLANS]
    assert found.curve.learn_seconds == [7.0] * (len(PLANS) - 1) + [0.0]
    assert torch.tensor(found.curve.nats).sum().item() == pytest.approx(found.score.nats)
