"""What counts as a difference, and as a leak."""

import numpy as np
import pytest

from fairway.audit.comparison import Comparison, Noise, differences, relative_rounding, repeat
from fairway.audit.scorer import Session, open_scorer
from fairway.audit.stream import Edit, pseudo_text

N = 200
TEXT = pseudo_text(32, N)
CALM = Noise(0.0, 2.0**-53)


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


def comparison(noise: Noise = CALM) -> Comparison:
    return Comparison(lambda tokens: None, TEXT, np.full(N - 1, 3.0), noise, 32)


def see(on: Comparison, edit: Edit, entry: int, nats: float):
    """The edit moved one entry."""
    edited = on.nats.copy()
    edited[entry] += nats
    return on.compare(edit, edit.apply(TEXT, 32), edited)


@pytest.mark.parametrize("cut", [2, 3, 50, N - 1])
def test_nats_may_read_their_own_token_and_none_after_it(cut: int) -> None:
    edit = Edit(cut, N, "uniform")
    assert see(comparison(), edit, cut - 1, 1.0) is None  # entry cut - 1 is of token cut itself
    leak = see(comparison(), edit, cut - 2, 1e-12)
    assert leak is not None
    assert leak.worst == cut - 2
    assert leak.reach == 1


def test_noise_is_forgiven_and_nothing_more() -> None:
    noisy = comparison(Noise(1e-6, 2.0**-53))
    assert see(noisy, Edit(90, N, "uniform"), 20, 3e-6) is None
    assert see(noisy, Edit(90, N, "uniform"), 20, 5e-6) is not None


def test_moved_documents_are_forgiven_rounding() -> None:
    edit = Edit(90, N, "many documents")
    assert see(comparison(), edit, 20, 1e-6) is None
    assert see(comparison(), edit, 20, 1e-4) is not None


def test_a_scorer_that_changed_is_no_leak_and_the_comparison_starts_anew() -> None:
    drift = iter(0.1 * np.arange(100))
    on = Comparison(
        lambda tokens: np.full(N - 1, 3.0 + next(drift)), TEXT, np.ones(N - 1), CALM, 32
    )
    assert on.try_edit(Edit(90, N, "uniform")) is None
    assert not on.leaks
    assert on.renewed == 1
