"""Orders are found and priced, cycles are shown by two edits, and no leak passes for an order."""

import math

import numpy as np
import pytest

from fairway.audit import Limits, run_audit
from fairway.audit.scoring_order import document_of, document_starts
from fairway.audit.stream import BOS, Edit, pseudo_text

from .clock import Clock
from .test_zoo import frauds, honest

TEXT = pseudo_text(32, 256)
FEW = Limits(positions=3, cuts=120)


def test_the_report_states_the_order_and_what_telling_it_costs() -> None:
    report = run_audit(honest.longest_first, vocab_size=32, tokens=TEXT, limits=FEW)
    documents = len(document_starts(TEXT))
    stated = report.to_json()["order"]
    assert stated["name"] == "longest first"
    assert stated["permutation_bits"] == 0
    bits = math.log2(math.comb(len(TEXT) - 1, documents - 1))
    assert stated["length_bits"] == pytest.approx(bits, abs=1e-3)
    assert "order of scoring: longest first; telling it costs 0.0 bits" in report.text()


def test_an_order_that_lengths_do_not_decide_is_told() -> None:
    report = run_audit(honest.last_document_first, vocab_size=32, tokens=TEXT, limits=FEW)
    documents = len(document_starts(TEXT))
    bits = math.log2(math.factorial(documents))
    assert report.order["permutation_bits"] == pytest.approx(bits, abs=1e-3)
    assert report.order["batches"] == [[d] for d in reversed(range(documents))]


def test_the_checks_of_a_cycle_show_it_again() -> None:
    scorer = frauds.hints_in_stream_order
    report = run_audit(scorer, vocab_size=32, tokens=TEXT, limits=FEW)
    assert len(report.order["cycle"]) == 2
    finding = report.probes["causality"].findings[0]
    assert f"documents {report.order['cycle']} read each other" in report.text()
    names = {"score": scorer, "tokens": TEXT, "Edit": Edit}
    lines = finding.check.splitlines()
    for edit, difference in (lines[0:2], lines[2:4]):
        exec(edit, names)
        assert abs(eval(difference, names)) > 0
    first = eval(lines[0].partition(" = ")[2].partition(".apply")[0], names)
    second = eval(lines[2].partition(" = ")[2].partition(".apply")[0], names)
    where = document_of(TEXT)
    assert [where[first.start], where[second.start]] == report.order["cycle"]


def test_a_longer_round_names_all_its_documents() -> None:
    report = run_audit(frauds.round_of_documents, vocab_size=32, tokens=TEXT, limits=FEW)
    assert sorted(report.order["cycle"]) == list(range(len(document_starts(TEXT))))


@pytest.mark.parametrize("ahead", [60, 100, 150])
def test_a_leak_into_another_document_is_no_order(ahead: int) -> None:
    def leaks(tokens: np.ndarray) -> np.ndarray:
        nats = np.full(len(tokens) - 1, np.log(32))
        nats[20:22] += 1e-3 * (tokens[20 + ahead] % 2)
        return nats

    report = run_audit(leaks, vocab_size=32, tokens=TEXT, limits=FEW)
    assert not report.probes["causality"].ok
    assert report.order["name"] is None


def test_one_long_text_has_no_other_order() -> None:
    text = np.where(TEXT == BOS, 9, TEXT)
    report = run_audit(frauds.adapt_then_score, vocab_size=32, tokens=text, limits=FEW)
    assert report.verdict == "illegal"
    assert report.order == {"name": None, "documents": 1}


def test_nobody_is_cleared_for_want_of_time(clock: Clock) -> None:
    def slow(tokens: np.ndarray) -> np.ndarray:
        clock.sleep(0.05)
        return frauds.looks_ahead_longest_first(tokens)

    for seconds in (1.5, 2.5, 4.0):
        report = run_audit(slow, vocab_size=32, tokens=TEXT, seconds=seconds, now=clock.read)
        assert report.verdict == "illegal"
        clock.now = 0.0


def test_a_text_of_many_documents_is_asked_as_far_as_time_allows(clock: Clock) -> None:
    def slow(tokens: np.ndarray) -> np.ndarray:
        clock.sleep(0.01)
        return honest.longest_first(tokens)

    rng = np.random.default_rng(3)
    text = rng.integers(4, 32, 1000)
    text[np.cumsum(rng.integers(4, 12, 120))] = BOS
    report = run_audit(slow, vocab_size=32, tokens=text, seconds=8.0, now=clock.read)
    assert report.verdict == "legal", report.text()
    assert report.order["name"] == "longest first"
