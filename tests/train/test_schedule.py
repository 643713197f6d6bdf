import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.train.schedule import (
    D2Z,
    Curriculum,
    DecayTaper,
    MomentumWarmup,
    Shape,
    Warmdown,
    When,
    current,
    decay_scale,
    lr_scale,
    momentum,
)

SHARES = st.floats(0.0, 1.0)


@given(SHARES, SHARES, SHARES, SHARES, st.sampled_from(["linear", "cosine"]))
def test_the_learning_rate_never_rises_and_never_leaves_its_bounds(
    a: float, b: float, fraction: float, floor: float, shape: Shape
) -> None:
    warmdown = Warmdown(fraction=fraction, floor=floor, shape=shape)
    early, late = lr_scale(min(a, b), warmdown), lr_scale(max(a, b), warmdown)
    assert 1.0 >= early >= late >= floor


@given(SHARES)
def test_before_the_warmdown_the_rate_is_at_its_peak(progress: float) -> None:
    expected = 1.0 if progress <= 0.25 else (1.0 - progress) / 0.75
    assert lr_scale(progress, Warmdown(fraction=0.75)) == pytest.approx(expected)


def test_the_floor_cuts_the_descent_and_does_not_tilt_it() -> None:
    with_floor, without = Warmdown(fraction=1.0, floor=0.1), Warmdown(fraction=1.0)
    assert lr_scale(0.5, with_floor) == lr_scale(0.5, without) == 0.5
    assert lr_scale(0.95, with_floor) == lr_scale(1.0, with_floor) == 0.1


def test_d2z_falls_from_the_first_step_to_zero() -> None:
    assert [lr_scale(p, D2Z) for p in (0.0, 0.25, 0.5, 1.0)] == [1.0, 0.75, 0.5, 0.0]


def test_cosine_and_linear_agree_at_both_ends_and_in_the_middle() -> None:
    linear, cosine = Warmdown(fraction=0.8), Warmdown(fraction=0.8, shape="cosine")
    for progress in (0.0, 0.2, 0.6, 1.0):
        assert lr_scale(progress, cosine) == pytest.approx(lr_scale(progress, linear))
    assert lr_scale(0.4, cosine) > lr_scale(0.4, linear)


def test_momentum_warms_up_over_steps_whatever_the_progress() -> None:
    warmup = MomentumWarmup(start=0.92, steps=1500)
    values = [momentum(0.9, step, 0.99, warmup) for step in (0, 750, 1500, 9000)]
    assert values == pytest.approx([0.92, 0.955, 0.99, 0.99])
    assert momentum(0.0, 0, 0.95, None) == 0.95
    assert momentum(0.0, 0, 0.95, MomentumWarmup(fraction=0.0)) == 0.95


@given(SHARES)
def test_decay_stays_between_its_final_share_and_one(progress: float) -> None:
    assert 0.5 <= decay_scale(progress, DecayTaper()) <= 1.0
    assert decay_scale(progress, None) == 1.0
    assert decay_scale(progress, DecayTaper(start=1.0)) == 1.0


def test_a_curriculum_walks_through_its_stages_in_order() -> None:
    lengths = Curriculum(stages=((0.1, 1024), (0.7, 2048), (1.0, 3072)))
    seen = [current(step / 100, lengths) for step in range(101)]
    assert [seen.count(value) for value in (1024, 2048, 3072)] == [10, 60, 31]
    assert seen == sorted(seen)


def test_a_point_in_the_run_is_reached_by_progress_or_by_rate() -> None:
    assert not When(progress=0.35).reached(0.34, lr_scale=0.0)
    assert When(progress=0.35).reached(0.35, lr_scale=1.0)
    assert not When(lr_scale_below=0.15).reached(1.0, lr_scale=0.15)
    assert When(lr_scale_below=0.15).reached(0.0, lr_scale=0.14)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: Warmdown(fraction=1.2), r"Warmdown.fraction=1.2.*between 0 and 1"),
        (
            lambda: Warmdown(shape="d2z"),  # type: ignore[arg-type]
            r"choose one of linear, cosine, or use D2Z",
        ),
        (lambda: MomentumWarmup(), r"give exactly one, for example fraction=0.3"),
        (lambda: MomentumWarmup(fraction=0.1, steps=3), r"give exactly one"),
        (lambda: MomentumWarmup(steps=-1), r"steps=-1 is negative"),
        (lambda: Curriculum(stages=((0.5, 1), (0.4, 2))), r"end at \[0.5, 0.4\].*end at 1.0"),
        (lambda: Curriculum(stages=()), r"stages end at \[\]"),
        (lambda: Curriculum(stages=((1.0, 0),)), r"at least 1"),
        (lambda: When(), r"give exactly one"),
        (lambda: When(lr_scale_below=0.0), r"must be in \(0, 1\]"),
    ],
)
def test_an_impossible_schedule_cannot_be_written(build, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        build()
