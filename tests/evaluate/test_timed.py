import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fairway.evaluate.chunks import Chunk, read_chunks
from fairway.evaluate.clocked import Budget, Clocked, LearnsFrom
from fairway.evaluate.config import make_predictor
from fairway.evaluate.frozen import Frozen
from fairway.evaluate.predictor import Predictor, score_stream
from fairway.evaluate.timed import (
    CheckpointConfig,
    Evaluation,
    evaluate_in_time,
    evaluation_identity,
)

from .models import CONFIGS, plans_of, text, tiny_model, val_text
from .models import SGD as SGD_LEARNER

TOKENS, STARTS = text((40, 50, 40))
SGD = CONFIGS["sgd"]
PLANS = plans_of(SGD, TOKENS, STARTS)


class FakeClock:
    """Shows a time that only the fake predictor moves."""

    def __init__(self) -> None:
        self.time = 100.0

    def __call__(self) -> float:
        return self.time


class Slow(LearnsFrom):
    """Takes seconds of a fake clock: so many per token scored, so many per lesson."""

    def __init__(
        self, inner: Predictor, clock: FakeClock, per_target: float, lesson: float
    ) -> None:
        super().__init__(inner)
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
    assert found.learned == ((0, len(PLANS) - 1),)
    assert found.schedule is None
    assert found.note is None
    assert slow.lessons == list(range(len(PLANS) - 1))


def test_lessons_are_skipped_while_only_the_rest_can_be_scored() -> None:
    targets = len(TOKENS) - 1
    for lessons in (1, 2, 4):
        budget = 1.03 * targets + 50.0 * lessons + 5.0
        found, slow = timed(budget, 1.0, 50.0)
        assert found.seconds <= budget
        assert found.score.num_tokens == targets
        assert slow.lessons == list(range(lessons))
        assert found.learned == ((0, lessons),)
        assert f"{lessons} of {len(PLANS) - 1} lessons were given" in (found.note or "")


def test_even_a_hopeless_budget_ends_with_a_score_and_says_so() -> None:
    found, slow = timed(10.0, 1.0, 50.0)
    assert found.score.num_tokens == len(TOKENS) - 1
    assert slow.lessons == []
    assert found.learned == ()
    assert "over time: took" in (found.note or "")
    assert "choose a larger one" in (found.note or "")


@pytest.mark.parametrize("name", [name for name, config in CONFIGS.items() if config.learns])
@pytest.mark.parametrize("learned", [(), ((0, 1), (2, 4)), ((1, 3),), ((2, 9), (10, 99))])
def test_a_decoder_follows_a_list_of_lessons_to_the_same_nats(
    name: str, learned: tuple[tuple[int, int], ...]
) -> None:
    config, (tokens, starts) = CONFIGS[name], text((19, 2, 24, 11, 18))
    plans = plans_of(config, tokens, starts)
    found = evaluate_in_time(
        make_predictor(tiny_model(), config), plans, val_text(tokens), learned=learned
    )
    runs = [(first, min(stop, found.num_lessons)) for first, stop in learned]
    assert found.learned == tuple(run for run in runs if run[0] < run[1])
    follower = LearnsFrom(make_predictor(tiny_model(), config), found.learned)
    assert score_stream(follower, read_chunks(plans, val_text(tokens))) == found.score


def test_a_lesson_known_to_be_long_is_not_begun_too_late() -> None:
    for planned in (500.0, [500.0] * len(PLANS)):
        clock = FakeClock()
        slow = Slow(make_predictor(tiny_model(), SGD), clock, 1.0, 500.0)
        budget = 1.03 * len(TOKENS) + 400.0
        found = evaluate_in_time(
            slow, PLANS, val_text(TOKENS), budget_seconds=budget, lesson_seconds=planned, now=clock
        )
        assert found.learned == ()
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
    assert resumed.documents.nats.tolist() == whole.documents.nats.tolist()
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
    with pytest.raises(ValueError, match="text, plan or number of ranks differ; delete it"):
        run(other)


def test_a_checkpoint_of_another_evaluation_is_refused(tmp_path: Path) -> None:
    """Model, settings and seed decide the nats and show in no plan: the caller names them."""
    checkpoint = CheckpointConfig(path=tmp_path / "evaluation", every_seconds=0.0)
    ours = evaluation_identity("aa", SGD, 0)

    def run(identity: str, number: int) -> Evaluation:
        def die(chunk: Chunk, nats: Tensor) -> None:
            if chunk.plan.index == number:
                raise Killed

        return evaluate_in_time(
            make_predictor(tiny_model(), SGD),
            PLANS,
            val_text(TOKENS),
            checkpoint=checkpoint,
            identity=identity,
            on_chunk=die,
        )

    with pytest.raises(Killed):
        run(ours, 2)
    slower = dataclasses.replace(SGD, ttt=dataclasses.replace(SGD_LEARNER, lr=0.01))
    for other in (
        evaluation_identity("bb", SGD, 0),
        evaluation_identity("aa", slower, 0),
        evaluation_identity("aa", SGD, 1),
        "",
    ):
        with pytest.raises(ValueError, match="another evaluation: model, settings, seed"):
            run(other, -1)
    assert (
        run(ours, -1).score
        == evaluate_in_time(make_predictor(tiny_model(), SGD), PLANS, val_text(TOKENS)).score
    )


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    checkpoint = CheckpointConfig(path=tmp_path / "evaluation", every_seconds=0.0)

    def run(number: int) -> None:
        def die(chunk: Chunk, nats: Tensor) -> None:
            if chunk.plan.index == number:
                raise Killed

        evaluate_in_time(
            make_predictor(tiny_model(), SGD),
            PLANS,
            val_text(TOKENS),
            checkpoint=checkpoint,
            on_chunk=die,
        )

    with pytest.raises(Killed):
        run(2)
    whole = checkpoint.path.read_bytes()
    for place in range(0, len(whole), max(1, len(whole) // 60)):
        checkpoint.path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(ValueError, match=r"checkpoint of an evaluation|another evaluation"):
            run(-1)


def test_what_was_skipped_before_an_interruption_stays_skipped(tmp_path: Path) -> None:
    checkpoint = CheckpointConfig(path=tmp_path / "evaluation", every_seconds=0.0)

    def run(number: int) -> Evaluation:
        def die(chunk: Chunk, nats: Tensor) -> None:
            if chunk.plan.index == number:
                raise Killed

        clock = FakeClock()
        slow = Slow(make_predictor(tiny_model(), SGD), clock, 1.0, 50.0)
        return evaluate_in_time(
            slow,
            PLANS,
            val_text(TOKENS),
            budget_seconds=1.03 * len(TOKENS) + 105.0,
            checkpoint=checkpoint,
            on_chunk=die,
            now=clock,
        )

    whole = run(-1)
    assert whole.schedule is not None
    with pytest.raises(Killed):
        run(4)
    again = run(-1)
    assert (again.score, again.learned) == (whole.score, whole.learned)
    assert again.seconds == pytest.approx(whole.seconds)


def test_the_clock_counts_what_an_interrupted_run_has_spent() -> None:
    clock = FakeClock()
    budget = Budget(spent=30.0)
    clocked = Clocked(Frozen(tiny_model()), None, targets_left=10, budget=budget, now=clock)
    clock.time += 2.0
    assert clocked.spent_seconds == 32.0


def test_the_curve_has_the_seconds_of_every_chunk() -> None:
    found, _ = timed(None, 1.0, 7.0)
    assert found.curve.score_seconds == [float(plan.num_targets) for plan in PLANS]
    assert found.curve.learn_seconds == [7.0] * (len(PLANS) - 1) + [0.0]
    assert torch.tensor(found.curve.nats).sum().item() == pytest.approx(found.score.nats)
