"""Verdict, exit status, sentences."""

import pytest

from fairway.audit.findings import KINDS, LOOKS_LIKE, AuditReport, Finding, ProbeResult

FINE = ProbeResult("coverage", True, "63 nats for 63 targets, all finite")
LEAK = Finding("replacing token 9 changed the nats of token 3 by 0.1", ("A1", "A2"), "x\ny")
BROKEN = ProbeResult("causality", False, "4 leaks", (LEAK,), ("the end",), {"leaks": 4})

NOT_ASKED = ProbeResult("mine", False, "failed: KeyError", details={"broken": "KeyError: 3"})


@pytest.mark.parametrize(
    ("probes", "problem", "verdict", "status"),
    [
        ((FINE,), "", "legal", 0),
        ((FINE, BROKEN), "", "illegal", 1),
        ((FINE,), "x", "unknown", 2),
        ((FINE, NOT_ASKED), "", "unknown", 2),
        ((FINE, BROKEN, NOT_ASKED), "", "illegal", 1),
    ],
)
def test_one_failed_probe_is_enough(probes, problem: str, verdict: str, status: int) -> None:
    report = AuditReport("f", {p.name: p for p in probes}, problem=problem)
    assert report.verdict == verdict
    assert report.exit_status == status
    assert report.to_json()["verdict"] == verdict


def test_the_text_says_what_was_seen_what_it_is_and_how_to_see_it_again() -> None:
    text = AuditReport("f", {"causality": BROKEN}, ("a note",), command="fairway audit f").text()
    for words in (
        "f: ILLEGAL",
        "FAIL  causality: 4 leaks",
        LEAK.said,
        "likely A1: adapt to the whole text, then score it (from outside, A2 would look the same)",
        "check: x\n",
        "not covered:\n        - causality: the end",
        "a note",
        "again: fairway audit f",
    ):
        assert words in text


def test_json_keeps_kind_and_alternatives_apart() -> None:
    finding = AuditReport("f", {"causality": BROKEN}).to_json()["probes"]["causality"]["findings"][
        0
    ]
    assert finding["kind"] == "A1"
    assert finding["kind_name"] == KINDS["A1"]
    assert finding["alternatives"] == ["A2"]


def test_every_kind_is_what_some_symptom_looks_like() -> None:
    assert {kind for kinds in LOOKS_LIKE.values() for kind in kinds} == set(KINDS)


def test_a_report_comes_back_from_its_json() -> None:
    report = AuditReport("f", {"causality": BROKEN}, ("a note",), command="again", calls=3)
    assert AuditReport.from_json(report.to_json()) == report
