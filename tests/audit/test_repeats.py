"""What the unedited stream shows: coverage, noise, state."""

import re

import numpy as np
import pytest

from fairway.audit.case import Case
from fairway.audit.comparison import Noise, differences, relative_rounding, repeat
from fairway.audit.repeats import probe_coverage
from fairway.audit.scorer import Session, open_scorer
from fairway.audit.stream import pseudo_text

TEXT = pseudo_text(32, 64)


def coverage(function):
    session = Session(open_scorer(function), stop_at=np.inf)
    try:
        answer = session.call(TEXT)
        return probe_coverage(Case(session=session, stream=TEXT, answer=answer, vocab_size=32))
    finally:
        session.scorer.close()


def test_differences_treat_equal_oddities_as_equal() -> None:
    a = np.array([1.0, np.inf, np.nan, np.nan, np.inf])
    b = np.array([1.5, np.inf, np.nan, 2.0, 3.0])
    assert differences(a, b).tolist() == [0.5, 0.0, 0.0, np.inf, np.inf]


def test_a_scorer_without_noise_is_held_to_equality() -> None:
    assert Noise(0.0, 0.0).threshold == 0.0
    assert Noise(1e-6, 0.0).threshold == pytest.approx(4e-6)


@pytest.mark.parametrize(
    ("dtype", "step"), [(np.float64, 2.0**-53), (np.float32, 2.0**-24), (np.float16, 2.0**-11)]
)
def test_the_format_of_nats_is_read_off_the_nats(dtype: type, step: float) -> None:
    nats = np.random.default_rng(0).gamma(2, 2, 50).astype(dtype).astype(np.float64)
    assert relative_rounding(nats) == step


def test_the_noise_floor_is_what_repetitions_differ_by() -> None:
    calls = iter(range(100))

    def trembles(tokens: np.ndarray) -> np.ndarray:
        return np.full(len(tokens) - 1, 3.0) + 1e-6 * (next(calls) % 2)

    session = Session(open_scorer(trembles), stop_at=np.inf)
    first = session.call(TEXT).nats
    assert first is not None
    seen = repeat(lambda tokens: session.call(tokens).nats, TEXT, 32, first, 3)
    assert seen.noise().floor == pytest.approx(1e-6)
    assert len(seen.plain) == 10  # noise is measured longer once it is seen
    session.scorer.close()


def test_n_minus_one_finite_nats_are_coverage() -> None:
    result = coverage(lambda t: np.full(len(t) - 1, 3.4))
    assert result.ok
    assert result.summary == "63 nats for 63 targets, all finite"


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda t: np.full(len(t), 3.4), "64 nats for 63 targets: 1 too many"),
        (lambda t: np.full(len(t) - 3, 3.4), r"2 tokens \(3.2%\) are not scored"),
        (lambda t: np.full(len(t) - 1, 3), "the nats are int64"),
        (lambda t: np.full(len(t) - 1, np.nan), "63 of 63 nats are NaN, the first at token 1"),
        (lambda t: np.full(len(t) - 1, np.inf), "infinite"),
        (lambda t: np.full(len(t) - 1, -1.0), "negative"),
        (lambda t: np.zeros(len(t) - 1), "exactly 0 nats"),
        (lambda t: 3.4, r"shape \(\)"),
        (lambda t: None, "NoneType"),
    ],
)
def test_what_is_wrong_with_the_nats_is_said(function, words: str) -> None:
    result = coverage(function)
    assert not result.ok
    assert re.search(words, " ".join(f.said for f in result.findings))
