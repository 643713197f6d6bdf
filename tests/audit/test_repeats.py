"""What the unedited stream shows: coverage."""

import re

import numpy as np
import pytest

from fairway.audit.case import Case
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
