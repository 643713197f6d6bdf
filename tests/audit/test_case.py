"""What a probe is handed, and how the time is shared."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.audit.case import Case, Limits, make_plan
from fairway.audit.findings import ProbeResult
from fairway.audit.scorer import Session, open_scorer
from fairway.audit.stream import pseudo_text


@given(
    st.integers(16, 100_000),
    st.integers(2, 65_536),
    st.floats(1e-5, 5.0),
    st.floats(0.01, 600.0),
)
def test_a_plan_never_promises_more_than_its_time(
    num_tokens: int, vocab_size: int, call_seconds: float, seconds_left: float
) -> None:
    plan = make_plan(num_tokens, vocab_size, call_seconds, seconds_left, Limits())
    least = 32 + 4  # what is done whatever the time
    assert plan.calls <= max(least, seconds_left / call_seconds)
    assert plan.edits >= 1
    assert plan.positions >= 1


def test_limits_are_checked() -> None:
    with pytest.raises(ValueError, match="2 repeats"):
        Limits(repeats=1)


def test_a_probe_is_asked_once_and_only_when_its_result_is_wanted() -> None:
    asked: list[str] = []

    def first(case: Case) -> ProbeResult:
        asked.append("first")
        return ProbeResult("", case.result("second").ok, "it depends")

    def second(case: Case) -> ProbeResult:
        asked.append("second")
        return ProbeResult("", True, "fine")

    session, stream = Session(open_scorer(np.diff), stop_at=np.inf), pseudo_text(64, 64)
    case = Case(session=session, stream=stream, answer=session.call(stream), vocab_size=64)
    case.probes = {"first": first, "second": second, "third": first}
    assert [case.result(name).name for name in ("first", "second", "first")] == [
        "first",
        "second",
        "first",
    ]
    assert asked == ["first", "second"]
    assert session.calls == 1  # nothing is known that nobody asked for
    assert len(case.seen.plain) == 4
    assert session.calls == 5
    session.scorer.close()
