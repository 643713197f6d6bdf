"""Adding up distributions."""

import numpy as np
import pytest

from fairway.audit import Limits, run_audit
from fairway.audit.normalization import choose_positions
from fairway.audit.stream import context_matches, pseudo_text

from .clock import Clock

V, N = 32, 128
LARGE = 50_000  # tokens: no audit of 1.5 s asks for each of them at 5 ms a call
TEXT = pseudo_text(V, N)
LOGITS = np.random.default_rng(3).normal(0, 1.5, (V, V))
TABLE = LOGITS - np.log(np.exp(LOGITS).sum(1, keepdims=True))


def bigram(tokens: np.ndarray) -> np.ndarray:
    return -TABLE[tokens[:-1], tokens[1:]]


def test_positions_cover_ends_known_phrases_and_every_place_once() -> None:
    nats = bigram(TEXT)
    order = choose_positions(TEXT, nats, seed=0)
    assert sorted(order) == list(range(N - 1))
    assert order[0] == N - 2
    assert 0 in order[:20]
    length = context_matches(TEXT)[0]
    assert (length[order[:20]] >= 2).sum() >= 5
    assert (TEXT[1:][order[:30]] == 1).any()


def test_rare_continuations_of_known_phrases_come_early() -> None:
    hint = context_matches(TEXT)[1]
    early = choose_positions(TEXT, bigram(TEXT), seed=0)[:30]
    assert len(set(hint[early].tolist())) >= 10


@pytest.mark.parametrize("error", [3e-4, -3e-4, 0.01, -0.01])
def test_a_sum_that_is_off_is_found(error: float) -> None:
    report = run_audit(
        lambda t: bigram(t) - np.log1p(error), vocab_size=V, tokens=TEXT, limits=Limits(positions=4)
    )
    assert not report.probes["normalization"].ok
    assert f"add up to {1 + error:.6g} instead of 1" in report.text()
    assert report.probes["normalization"].details["largest_error"] == pytest.approx(abs(error))


def test_a_sum_within_a_ten_thousandth_is_let_pass() -> None:
    report = run_audit(
        lambda t: bigram(t) - np.log1p(5e-5), vocab_size=V, tokens=TEXT, limits=Limits(positions=4)
    )
    assert report.verdict == "legal"


def test_one_percent_is_found_even_in_bfloat16() -> None:
    def rounded(tokens: np.ndarray, error: float) -> np.ndarray:
        bits = (bigram(tokens) - np.log1p(error)).astype(np.float32).view(np.uint32)
        return ((bits + np.uint32(0x8000)) & np.uint32(0xFFFF0000)).view(np.float32)

    limits = Limits(positions=12)
    for error, verdict in ((0.0, "legal"), (0.01, "illegal")):
        report = run_audit(
            lambda t, e=error: rounded(t, e), vocab_size=V, tokens=TEXT, limits=limits
        )
        assert report.verdict == verdict, report.text()


def test_a_partial_sum_above_one_is_proof_enough(clock: Clock) -> None:
    """A vocabulary too large for the time: the likeliest tokens alone add up to more than one."""

    def generous(tokens: np.ndarray) -> np.ndarray:
        clock.sleep(0.005)
        return np.full(len(tokens) - 1, np.log(4.0))

    report = run_audit(generous, vocab_size=LARGE, tokens=TEXT, seconds=1.5, now=clock.read)
    found = report.probes["normalization"]
    assert not found.ok
    assert found.details["whole"] == 0
    assert "of the 50,000 alternatives" in found.findings[0].said


def test_a_partial_sum_below_one_is_no_verdict(clock: Clock) -> None:
    def fair(tokens: np.ndarray) -> np.ndarray:
        clock.sleep(0.005)
        return np.full(len(tokens) - 1, np.log(LARGE))

    report = run_audit(fair, vocab_size=LARGE, tokens=TEXT, seconds=1.5, now=clock.read)
    assert report.probes["normalization"].ok
    assert any("whole sum" in part for part in report.probes["normalization"].not_covered)
    assert "not covered" in report.text()


def test_an_alternative_without_nats_is_a_fault() -> None:
    def partial(tokens: np.ndarray) -> np.ndarray:
        nats = bigram(tokens)
        nats[tokens[1:] == 0] = np.nan  # no text holds token 0
        return nats

    report = run_audit(partial, vocab_size=V, tokens=TEXT, limits=Limits(positions=2))
    assert report.probes["coverage"].ok
    assert "alternatives have no nats (token id 0" in report.text()
