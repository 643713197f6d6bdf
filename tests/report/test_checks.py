"""Promises: kept, broken, not tried and not made are four different things."""

from dataclasses import replace
from typing import Any

import pytest

from fairway.audit.findings import Finding, ProbeResult
from fairway.evaluate.diagnostic import WARNING
from fairway.report.checks import (
    audit_check,
    cap_check,
    checks,
    diagnostics,
    proof_check,
    seconds_check,
)
from fairway.result import TrainResult

from .run_results import ARTIFACT, DIAGNOSTICS, PROOF, TRAIN, audited, bare_result, full_result


def test_a_full_run_keeps_every_promise() -> None:
    assert [check.state for check in checks(full_result())] == ["kept"] * 5


def test_nothing_run_is_nothing_kept_and_nothing_broken() -> None:
    states = {check.name: check.state for check in checks(bare_result())}
    assert states.pop("Training") == "kept"
    assert set(states.values()) == {"not run"}
    assert seconds_check("Training", None).state == "not run"


@pytest.mark.parametrize(("spare", "state"), [(1, "kept"), (0, "kept"), (-1, "broken")])
def test_the_cap_is_met_to_the_byte(spare: int, state: str) -> None:
    artifact = replace(ARTIFACT, bytes_total=16_000_000 - spare, cap_bytes=16_000_000)
    check = cap_check(artifact)
    assert check.state == state
    assert f"{abs(spare)} bytes" in check.sentence


def test_rounding_never_makes_an_artifact_look_as_if_it_fitted() -> None:
    artifact = replace(ARTIFACT, bytes_total=16_000_001, cap_bytes=16_000_000)
    assert cap_check(artifact).short == "16.01 MB of 16 MB"


def test_a_budget_nobody_set_is_no_promise() -> None:
    train = TrainResult(seconds=3.0, steps=1, tokens=1)
    assert seconds_check("Training", train).state == "no limit"
    assert cap_check(replace(ARTIFACT, cap_bytes=None)).state == "no limit"


def test_a_budget_is_missed_by_any_excess() -> None:
    check = seconds_check("Training", replace(TRAIN, seconds=600.01, budget_seconds=600.0))
    assert (check.state, "0.01 s too long" in check.sentence) == ("broken", True)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"decoded_equal": False}, "did not return the text"),
        (
            {"coded_bits_per_byte": 1.6, "holds": False},
            "1.60000 bits per byte where the score claims 1.50410",
        ),
        ({"holds": False}, "where the score claims"),
    ],
)
def test_a_proof_that_proves_nothing_is_broken(change: dict[str, Any], words: str) -> None:
    check = proof_check(replace(PROOF, **change), None)
    assert check.state == "broken"
    assert words in check.sentence


def test_a_proof_of_a_part_says_which_part() -> None:
    assert "the first 4,096 of 280,000 tokens" in proof_check(PROOF, 280_000).sentence
    assert "all 280,000 tokens" in proof_check(replace(PROOF, tokens=280_000), 280_000).sentence


def test_an_audit_without_verdict_is_not_legal() -> None:
    assert audit_check(audited(problem="no call")).state == "not run"
    alone = ProbeResult("determinism", False, "", details={"broken": "no answer"})
    assert audit_check(audited(alone)).sentence.endswith("probe 'determinism': no answer")
    check = audit_check(
        audited(ProbeResult("causality", False, ""), ProbeResult("bytes", True, ""))
    )
    assert (check.state, "failed causality." in check.sentence) == ("broken", True)


def test_an_illegal_number_never_comes_without_its_words() -> None:
    """Not even where the file leaves them out."""
    ((name, value, words),) = diagnostics(replace(bare_result(), diagnostics=DIAGNOSTICS))
    assert (name, value) == ("adapt_then_score", 1.23456)
    assert words == f"{WARNING}; the honest score is 1.50000"
    assert WARNING.startswith("illegal: learned from a token before")
    other = {"pr2135_as_published": DIAGNOSTICS["adapt_then_score"]}
    ((_, _, words),) = diagnostics(replace(bare_result(), diagnostics=other))
    assert words.startswith("no code length: of two documents, each")


def test_a_run_that_took_too_long_is_over_time_and_not_illegal() -> None:
    said = Finding("over time: train took 201.6 s of 180 s")
    late = ProbeResult("budget", False, "", (said,), details={"over": ["time"]})
    fine = ProbeResult("causality", True, "")
    check = audit_check(audited(late, fine))
    assert (check.state, check.short) == ("broken", "over time")
    assert check.sentence.startswith("Over time, and legal in all else: over time: train took")
    assert not replace(full_result(), audit=audited(late, fine)).holds
    leaks = ProbeResult("causality", False, "")
    assert audit_check(audited(late, leaks)).short == "illegal"
    train = seconds_check("Training", replace(TRAIN, seconds=201.6, budget_seconds=180.0))
    assert train.short == "202 of 180 s: over time"
