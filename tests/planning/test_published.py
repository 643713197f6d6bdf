"""The fit to published steps finds what made them, and says how far it may be off."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.planning.published import NODE, fit_steps


@given(st.floats(0.001, 0.1), st.floats(1e13, 1e15))
def test_steps_that_follow_the_model_are_fitted_exactly(fixed: float, rate: float) -> None:
    flops = [1e14, 2e14, 3e14, 5e14]
    found = fit_steps(flops, [fixed + work / (NODE * rate) for work in flops])
    assert found.fixed == pytest.approx(fixed, rel=1e-3, abs=1e-6)
    assert found.rate == pytest.approx(rate, rel=1e-3)
    assert found.error < 1e-3
    assert found.seconds(4e14, NODE) == pytest.approx(fixed + 4e14 / (NODE * rate), rel=1e-3)


def test_the_error_is_that_of_a_run_left_out() -> None:
    flops = [1e14, 2e14, 3e14, 4e14]
    taken = [0.02 + work / (NODE * 3e14) for work in flops]
    taken[2] *= 1.2
    assert 0.1 < fit_steps(flops, taken).error < 0.5
