import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.train.clock import StepClock, WallClock


def run(clock: WallClock, lengths, now: list[float]) -> tuple[int, list[float]]:
    """Live through steps of the given lengths; returns their number and the progress of each."""
    progress = []
    for step, length in enumerate(lengths):
        progress.append(clock.progress(step))
        if progress[-1] >= 1.0:
            return step, progress
        now[0] += length
    raise AssertionError("the clock did not stop")


def test_a_step_clock_counts_to_one() -> None:
    clock = StepClock(4)
    assert [clock.progress(step) for step in range(6)] == [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]


@given(st.floats(1.0, 1e4), st.floats(1e-3, 0.4), st.floats(0.0, 0.5))
def test_a_run_ends_within_half_a_step_of_its_budget(
    seconds: float, share: float, reserve_share: float
) -> None:
    now, length = [123.0], seconds * share
    clock = WallClock(seconds, reserve_seconds=seconds * reserve_share, now=lambda: now[0])
    run(clock, [length] * 5000, now)
    assert abs(clock.spent - clock.budget) <= length / 2 + 1e-6 * seconds


def test_steps_that_grow_longer_are_foreseen_as_the_last_ones_were() -> None:
    """Depth recurrence makes steps half as long again from some point on."""
    now = [0.0]
    clock = WallClock(60.0, now=lambda: now[0])
    run(clock, [0.1] * 200 + [0.15] * 1000, now)
    assert abs(clock.spent - 60.0) <= 0.08


def test_progress_is_the_share_of_the_budget_without_the_reserve() -> None:
    now = [0.0]
    clock = WallClock(120.0, reserve_seconds=20.0, now=lambda: now[0])
    _, progress = run(clock, [10.0] * 100, now)
    assert progress == pytest.approx([n / 10 for n in range(11)])


def test_the_clock_starts_at_the_first_step_and_not_before() -> None:
    now = [0.0]
    clock = WallClock(10.0, now=lambda: now[0])
    now[0] = 99.0  # compiling, loading
    assert clock.progress(0) == 0.0
    assert clock.spent == 0.0


def test_a_resumed_run_has_only_the_rest_of_its_time() -> None:
    now = [0.0]
    clock = WallClock(10.0, spent_seconds=7.0, now=lambda: now[0])
    assert run(clock, [1.0] * 100, now)[0] == 3


def test_impossible_budgets_are_refused() -> None:
    with pytest.raises(ValueError, match=r"10 s of training less a reserve of 12 s leaves nothing"):
        WallClock(10, reserve_seconds=12)
    with pytest.raises(ValueError, match=r"a run of 0 steps trains nothing"):
        StepClock(0)
