"""The whole audit: time, errors, what a report holds."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.audit import HELP, PROBES, Limits, run_audit
from fairway.audit.run import make_plan
from fairway.audit.stream import pseudo_text

from .clock import Clock


def uniform(tokens: np.ndarray) -> np.ndarray:
    return np.full(len(tokens) - 1, np.log(64))


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


def test_the_plan_is_told_before_the_long_part_begins() -> None:
    told: list[str] = []
    run_audit(uniform, vocab_size=64, tokens=pseudo_text(64, 64), progress=told.append)
    assert told[1].startswith("plan: a call over 64 tokens takes")
    assert "calls," in told[1]


@pytest.mark.parametrize("seconds", [0.7, 2.0])
def test_an_audit_keeps_its_time_and_says_what_it_left_out(seconds: float, clock: Clock) -> None:
    def slow(tokens: np.ndarray) -> np.ndarray:
        clock.sleep(0.02)
        return uniform(tokens)

    report = run_audit(slow, vocab_size=64, seconds=seconds)
    assert clock.now < seconds + 0.1
    assert report.verdict == "legal"
    gaps = [gap for probe in report.probes.values() for gap in probe.not_covered]
    assert any("want of time" in gap for gap in gaps)


def test_a_long_slow_stream_is_probed_on_its_beginning(clock: Clock) -> None:
    def slow(tokens: np.ndarray) -> np.ndarray:
        clock.sleep(len(tokens) * 2e-5)
        return uniform(tokens)

    report = run_audit(slow, vocab_size=64, tokens=pseudo_text(64, 8192), seconds=2.0)
    assert report.verdict == "legal"
    assert report.probes["coverage"].details["prices"] == 8191
    assert "probes used its beginning" in report.text()


def test_the_same_seed_asks_the_same_questions(tmp_path: Path) -> None:
    asked: list[list[bytes]] = []
    for _ in range(2):
        seen: list[bytes] = []

        def score(tokens: np.ndarray, seen: list[bytes] = seen) -> np.ndarray:
            seen.append(tokens.tobytes())
            return uniform(tokens)

        run_audit(score, vocab_size=64, tokens=pseudo_text(64, 64), limits=Limits(positions=2))
        asked.append(seen)
    assert asked[0] == asked[1]


def test_json_has_the_promised_shape(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("import numpy as np\ndef score(t): return np.full(len(t) - 1, np.log(64))\n")
    np.save(tmp_path / "t.npy", pseudo_text(64, 64))
    report = run_audit(f"{file}:score", vocab_size=64, tokens=tmp_path / "t.npy", seconds=30)
    value = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert value["verdict"] == "legal"
    assert tuple(value["probes"]) == PROBES
    assert all(probe["ok"] is True for probe in value["probes"].values())
    assert value["command"] == (
        f"fairway audit {file}:score --vocab-size 64 --tokens {tmp_path / 't.npy'} --seconds 30"
    )
    assert report.probes["determinism"].details["fresh_nats"] == 0


@pytest.mark.parametrize(
    ("body", "seconds", "words"),
    [
        ("1 / 0", 60.0, "ZeroDivisionError"),
        ("exit(4)", 60.0, "SystemExit"),
        ("while True: pass", 1.0, "no answer"),
    ],
)
def test_a_scorer_that_cannot_be_called_is_neither_legal_nor_illegal(
    tmp_path: Path, body: str, seconds: float, words: str
) -> None:
    file = tmp_path / "mine.py"
    file.write_text(f"def score(t):\n    {body}\n")
    report = run_audit(f"{file}:score", vocab_size=64, seconds=seconds)
    assert report.exit_status == 2
    assert report.verdict == "unknown"
    assert words in report.problem
    assert words in report.text()
    json.dumps(report.to_json(), allow_nan=False)


def test_a_scorer_that_dies_on_some_streams_is_audited_on_the_others(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "import os, numpy as np\n"
        "def score(t):\n"
        "    if t[-1] == 9: os._exit(1)\n"
        "    return np.full(len(t) - 1, np.log(64))\n"
    )
    tokens = pseudo_text(64, 64)
    report = run_audit(f"{file}:score", vocab_size=64, tokens=tokens, limits=Limits(positions=2))
    assert report.exit_status == 1
    assert "ended with status 1" in report.probes["coverage"].findings[-1].said
    assert "1 of 64 alternatives have no price" in report.text()
    assert report.probes["causality"].ok


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"tokens": np.array([1, 2, 99] * 9)}, "vocab_size=64"),
        ({"tokens": np.ones(40)}, "float64"),
        ({"tokens": np.ones(3, dtype=int)}, "at least 16"),
        ({"tokens": "absent.npy"}, "absent.npy does not exist"),
        ({"num_bytes": 100}, "pass the tokens too"),
        (
            {"tokens": np.arange(40), "num_bytes": 9, "text": b"ab"},
            "num_bytes=9 but the text has 2",
        ),
        ({"vocab_size": 1}, "needs two of both"),
    ],
)
def test_unusable_arguments_are_user_errors(arguments: dict[str, Any], words: str) -> None:
    given: dict[str, Any] = {"vocab_size": 64} | arguments
    with pytest.raises(ValueError, match=words):
        run_audit(uniform, **given)


def test_limits_are_checked() -> None:
    with pytest.raises(ValueError, match="2 repeats"):
        Limits(repeats=1)


def test_an_implausible_score_is_noted() -> None:
    def certain(tokens: np.ndarray) -> np.ndarray:
        p = np.where((tokens[1:] - tokens[:-1]) % 64 == 1, 1 - 1e-6, 1e-6 / 63)
        return -np.log(p)

    report = run_audit(
        certain, vocab_size=64, tokens=np.arange(2, 130) % 64, limits=Limits(positions=2)
    )
    assert report.verdict == "legal"
    assert any("token counts alone" in note for note in report.notes)


def test_help_speaks_of_every_option() -> None:
    assert {"command", "scorer", "vocab_size", "tokens", "num_bytes", "seconds", "json"} <= set(
        HELP
    )
