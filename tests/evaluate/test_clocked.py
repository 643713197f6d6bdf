"""Lessons under a clock on machines that hiccup. No time passes but that of a fake clock."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from fairway.evaluate.chunks import Chunk, ChunkPlan
from fairway.evaluate.clocked import Budget, Clocked
from fairway.evaluate.pace import Pace, as_ranges
from fairway.evaluate.predictor import ALONE, Predictor, score_stream
from fairway.evaluate.windows import Window
from fairway.runtime.distributed import Ranks

TARGETS = 1024  # of a chunk


@dataclass
class Machine:
    """Takes so many seconds to score each chunk, and to learn from it, on its own clock."""

    score_seconds: list[float]
    lesson_seconds: list[float]
    time: float = 0.0

    def now(self) -> float:
        return self.time

    def score(self, chunk: Chunk) -> Tensor:
        self.time += self.score_seconds[chunk.plan.index]
        return torch.zeros(chunk.num_targets)

    def learn(self, chunk: Chunk) -> None:
        self.time += self.lesson_seconds[chunk.plan.index]

    def skip(self, chunk: Chunk) -> None:
        pass

    def allowed_lessons(self, budget_seconds: float) -> int:
        """How many fit, in order, for somebody who knows all that will happen."""
        left = budget_seconds - sum(self.score_seconds)
        given = 0
        for seconds in self.lesson_seconds[:-1]:
            if seconds <= left:
                left, given = left - seconds, given + 1
        return given

    def run(self, budget: Budget, ranks: Ranks = ALONE) -> Clocked:
        number = len(self.score_seconds)
        clocked = Clocked(
            cast(Predictor, self),
            None,
            targets_left=TARGETS * number,
            budget=budget,
            ranks=ranks,
            now=self.now,
        )
        score_stream(clocked, [chunk(i, number) for i in range(number)])
        return clocked


def chunk(index: int, number: int) -> Chunk:
    begin = index * TARGETS
    window = Window(begin, begin + 1, begin + TARGETS + 1)
    plan = ChunkPlan(index, number, (window,), (0,), ((begin, begin + TARGETS + 1),))
    return Chunk(plan, (), (), TARGETS)


def even(number: int = 360, score: float = 30.0, learn: float = 60.0) -> Machine:
    """As pocket was planned: 90 seconds of 120."""
    return Machine([score / number] * number, [learn / number] * number)


def random_hiccups(share: float, seed: int) -> Machine:
    generator, machine = random.Random(seed), even()

    def slowed(all_seconds: Sequence[float]) -> list[float]:
        return [s * (10 if generator.random() < share else 1) for s in all_seconds]

    return Machine(slowed(machine.score_seconds), slowed(machine.lesson_seconds))


def slower_from(place: int, factor: float) -> Machine:
    machine = even()

    def slowed(all_seconds: Sequence[float]) -> list[float]:
        return [s * (factor if i >= place else 1) for i, s in enumerate(all_seconds)]

    return Machine(slowed(machine.score_seconds), slowed(machine.lesson_seconds))


def stalled(place: int, seconds: float, learning: bool = False) -> Machine:
    machine = even()
    (machine.lesson_seconds if learning else machine.score_seconds)[place] += seconds
    return machine


MACHINES: dict[str, Machine] = {
    "even": even(),
    "3x slower halfway": slower_from(180, 3.0),
    "3x faster halfway": slower_from(180, 1 / 3),
    "stall at 2": stalled(2, 5.0),
    "stall at 18": stalled(18, 5.0),
    "stall at 300": stalled(300, 5.0),
    "stall in a lesson": stalled(40, 5.0, learning=True),
} | {
    f"{share:.0%} hiccups, seed {seed}": random_hiccups(share, seed)
    for share in (0.02, 0.05, 0.1)
    for seed in range(5)
}


@pytest.mark.parametrize("reserve", [0.0, 0.02, 0.1, 0.3])
@pytest.mark.parametrize("name", MACHINES)
def test_nearly_all_lessons_that_the_clock_allows_are_given_in_time(
    name: str, reserve: float
) -> None:
    """`reserve`: share of the learning by which the budget is larger than all that will happen."""
    machine = Machine(MACHINES[name].score_seconds, MACHINES[name].lesson_seconds)
    budget = sum(machine.score_seconds) + (1 + reserve) * sum(machine.lesson_seconds)
    clocked = machine.run(Budget(budget))
    assert len(clocked.learned) >= 0.95 * machine.allowed_lessons(budget)
    assert clocked.spent_seconds <= budget + max(machine.lesson_seconds)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("name", ["even", "stall at 2", "stall at 18", "stall in a lesson"])
def test_a_budget_for_part_of_the_lessons_is_used_and_kept(name: str, share: float) -> None:
    machine = Machine(MACHINES[name].score_seconds, MACHINES[name].lesson_seconds)
    budget = sum(machine.score_seconds) + share * sum(machine.lesson_seconds)
    clocked = machine.run(Budget(budget))
    assert len(clocked.learned) >= 0.95 * machine.allowed_lessons(budget)
    assert clocked.spent_seconds <= budget + max(machine.lesson_seconds)


def test_what_was_measured_no_longer_ends_learning() -> None:
    """One slow chunk at 18 of 360, with 120 seconds for a plan of 90: all lessons are given."""
    for place, seconds in ((18, 1.0), (40, 5.0)):
        machine = stalled(place, seconds)
        clocked = machine.run(Budget(120.0))
        assert len(clocked.learned) >= 355
        assert clocked.spent_seconds < 120.0


def test_lessons_go_on_after_a_skipped_one() -> None:
    """A beginning three times as slow as the rest, and a budget that is only just enough."""
    machine = slower_from(120, 1 / 3)
    budget = sum(machine.score_seconds) + 0.9 * sum(machine.lesson_seconds)
    clocked = machine.run(Budget(budget))
    first, *others = as_ranges(clocked.learned)
    assert others
    assert first[0] == 0
    assert clocked.spent_seconds <= budget


def test_a_pause_that_was_planned_is_waited_for() -> None:
    """A lesson that is planned to be long is begun only if it fits as it is, and others go on."""
    machine = even()
    machine.lesson_seconds[200] = 30.0
    budget = Budget(sum(machine.score_seconds) + 50.0, machine.lesson_seconds)
    clocked = machine.run(budget)
    assert clocked.spent_seconds <= (budget.seconds or 0)
    assert 200 not in clocked.learned
    assert len(clocked.learned) >= 0.95 * 300


def test_all_ranks_do_what_the_first_decides() -> None:
    """Each of the others has a clock of its own, on which everything would fit."""
    first = even()
    decided = first.run(Budget(60.0)).learned

    class Follower(Ranks):
        asked = 0

        def broadcast(self, value: Tensor, source: int = 0) -> Tensor:
            self.__dict__["asked"] = self.asked + 1
            return torch.tensor(float(self.asked - 1 in decided))

    other = Machine([0.0] * 360, [0.0] * 360)
    assert other.run(Budget(60.0), ranks=cast(Any, Follower())).learned == decided
    assert 0 < len(decided) < 359


def test_an_estimate_hangs_on_no_single_chunk() -> None:
    pace = Pace()
    assert (pace.rest_seconds(1000), pace.lesson_seconds(1.0)) == (0.0, None)
    for seconds in [1.0] * 20 + [1e6]:
        pace.scored(seconds, 10)
        pace.learned(seconds, 10)
    assert pace.rest_seconds(10) < 2.5
    assert pace.lesson_seconds(10) == 1.0
    for _ in range(8):
        pace.scored(3.0, 10)
    assert pace.rest_seconds(10) > 3.0


def test_chunks_without_targets_say_nothing_of_the_pace() -> None:
    pace = Pace()
    pace.scored(5.0, 0)
    pace.learned(5.0, 0.0)
    assert pace == Pace()
