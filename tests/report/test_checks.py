"""Promises: kept, broken, not tried and not made are four different things."""

from typing import Any

import pytest

from fairway.report.checks import (
    ILLEGAL,
    audit_check,
    cap_check,
    checks,
    diagnostics,
    proof_check,
    seconds_check,
)

from .run_results import full_result


def test_a_full_run_keeps_every_promise() -> None:
    assert [check.state for check in checks(full_result())] == ["kept"] * 5


def test_nothing_run_is_nothing_kept_and_nothing_broken() -> None:
    assert {check.state for check in checks({})} == {"not run"}


@pytest.mark.parametrize(("spare", "state"), [(1, "kept"), (0, "kept"), (-1, "broken")])
def test_the_cap_is_met_to_the_byte(spare: int, state: str) -> None:
    check = cap_check({"artifact": {"bytes_total": 16_000_000 - spare, "cap_bytes": 16_000_000}})
    assert check.state == state
    assert f"{abs(spare)} bytes" in check.sentence


def test_rounding_never_makes_an_artifact_look_as_if_it_fitted() -> None:
    check = cap_check({"artifact": {"bytes_total": 16_000_001, "cap_bytes": 16_000_000}})
    assert check.short == "16.01 MB of 16 MB"


def test_a_budget_nobody_set_is_no_promise() -> None:
    assert seconds_check({"train": {"seconds": 3.0}}, "train", "Training").state == "no limit"
    assert cap_check({"artifact": {"bytes_total": 10}}).state == "no limit"


def test_a_budget_is_missed_by_any_excess() -> None:
    part = {"train": {"seconds": 600.01, "budget_seconds": 600.0}}
    check = seconds_check(part, "train", "Training")
    assert (check.state, "0.01 s too long" in check.sentence) == ("broken", True)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"decoded_equal": False}, "did not return the text"),
        ({"coded_bits_per_byte": 1.6}, "1.60000 bits per byte where the score claims 1.50410"),
        ({"holds": False}, "where the score claims"),
        ({"claimed_bits_per_byte": None}, "not run"),
    ],
)
def test_a_proof_that_proves_nothing_is_broken(change: dict[str, Any], words: str) -> None:
    check = proof_check({"proof": full_result()["proof"] | change})
    assert check.state == "broken"
    assert words in check.sentence


def test_a_proof_of_a_part_says_which_part() -> None:
    result = full_result()
    assert "the first 4,096 of 280,000 tokens" in proof_check(result).sentence
    result["proof"]["tokens"] = 280_000
    assert "all 280,000 tokens" in proof_check(result).sentence


def test_an_audit_without_verdict_is_not_legal() -> None:
    assert audit_check({"audit": {"verdict": "unknown", "problem": "no call"}}).state == "not run"
    probes = {"causality": {"ok": False}, "bytes": {"ok": True}}
    check = audit_check({"audit": {"verdict": "illegal", "probes": probes}})
    assert (check.state, "failed causality" in check.sentence) == ("broken", True)


@pytest.mark.parametrize("entry", [1.2, {"bits_per_byte": 1.2}])
def test_an_illegal_number_never_comes_without_its_words(entry: Any) -> None:
    assert diagnostics({"diagnostics": {"adapt_then_score": entry}}) == [
        ("adapt_then_score", 1.2, ILLEGAL)
    ]
    assert ILLEGAL == "illegal: learned from a token before scoring it"
