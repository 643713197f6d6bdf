"""The collection: every known way of cheating is found, and nobody honest is accused."""

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from fairway.audit import KINDS, Limits, run_audit
from fairway.audit.stream import pseudo_text

HERE = Path(__file__).parent
QUICK = Limits(positions=8)


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"audit_zoo_{name}", HERE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


frauds, honest = load("frauds"), load("honest")


class Tokenizer:
    """The pieces of the collection behind the interface of a SentencePieceProcessor."""

    def vocab_size(self) -> int:
        return len(frauds.PIECES)

    def id_to_piece(self, i: int) -> str:
        return frauds.PIECES[i]

    def is_control(self, i: int) -> bool:
        return i < 3

    def is_unknown(self, i: int) -> bool:
        return i == 3

    def is_unused(self, i: int) -> bool:
        return False

    def is_byte(self, i: int) -> bool:
        return frauds.PIECES[i].startswith("<0x")


def text_for(name: str) -> np.ndarray:
    return frauds.stored_text() if name == "paid_prefix" else pseudo_text(32, 256)


@pytest.mark.parametrize("name", sorted(frauds.CAUGHT))
def test_a_fraud_is_found_and_named(name: str) -> None:
    probe, kind = frauds.CAUGHT[name]
    # What is kept between calls must not come from another test, so those get own processes.
    own_process = probe == "determinism"
    report = run_audit(
        f"{HERE / 'frauds.py'}:{name}" if own_process else getattr(frauds, name),
        vocab_size=32,
        tokens=text_for(name),
        tokenizer=Tokenizer() if probe == "bytes" else None,
        limits=QUICK,
    )
    found = report.probes[probe]
    assert not found.ok
    assert report.verdict == "illegal"
    assert report.exit_status == 1
    assert kind is None or kind in [f.kinds[0] for f in found.findings if f.kinds], report.text()
    assert found.findings[0].said in report.text()


@pytest.mark.parametrize("function", honest.HONEST, ids=lambda f: f.__name__)
def test_an_honest_scorer_is_not_accused(function) -> None:
    report = run_audit(
        function,
        vocab_size=32,
        tokens=pseudo_text(32, 256),
        tokenizer=Tokenizer(),
        limits=Limits(positions=5, cuts=150),
    )
    assert report.verdict == "legal", report.text()
    assert report.exit_status == 0
    assert report.order["name"] == honest.ORDERS.get(function.__name__, "stream order")


@pytest.mark.slow
@pytest.mark.parametrize("name", [f.__name__ for f in honest.HONEST])
def test_an_honest_scorer_is_not_accused_on_the_default_text(name: str) -> None:
    report = run_audit(f"{HERE / 'honest.py'}:{name}", vocab_size=32, limits=QUICK)
    assert report.verdict == "legal", report.text()


def test_a_length_aware_schedule_is_a_note_and_no_fault() -> None:
    report = run_audit(
        honest.length_aware_schedule, vocab_size=32, tokens=pseudo_text(32, 256), limits=QUICK
    )
    assert any("length of the stream" in note for note in report.notes)
    assert report.verdict == "legal"


def test_bad_manners_are_notes_and_no_fault() -> None:
    report = run_audit(
        f"{HERE / 'honest.py'}:bad_manners",
        vocab_size=32,
        tokens=pseudo_text(32, 256),
        limits=QUICK,
    )
    assert any("stdout" in note for note in report.notes)
    assert any("writes into the tokens" in note for note in report.notes)
    assert report.verdict == "legal"


def test_every_section_of_the_catalogue_is_represented() -> None:
    entries = {getattr(frauds, name).__doc__.split(".")[0] for name in frauds.CAUGHT}
    wanted = {"A1", "A2", "A3", "A4", "A5", "A6", "A7", "A10", "A11", "B1", "B2", "B3", "B4", "B5"}
    wanted |= {"C-a", "C-e", "C-f", "D2", "D6", "E1", "E2", "E3", "E5", "E6", "E7", "E8", "E9"}
    assert wanted <= entries
    assert {kind for _, kind in frauds.CAUGHT.values() if kind} <= set(KINDS)
    assert frauds.PIECES == honest.PIECES
