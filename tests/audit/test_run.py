"""The whole audit: time, errors, what a report holds."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fairway.audit import PROBES, Case, Finding, Limits, ProbeResult, run_audit
from fairway.audit.stream import pseudo_text

from .clock import Clock


def uniform(tokens: np.ndarray) -> np.ndarray:
    return np.full(len(tokens) - 1, np.log(64))


def test_the_plan_is_shown_before_the_long_part_begins() -> None:
    lines: list[str] = []

    def keep(done: float = 0.0, total: float = 0.0, *, text: str = "", **numbers: float) -> None:
        lines.append(text)

    run_audit(uniform, vocab_size=64, tokens=pseudo_text(64, 64), progress=keep)
    plan = next(number for number, line in enumerate(lines) if line.startswith("plan"))
    assert lines[plan].startswith("plan: a call over 64 tokens takes")
    assert "calls," in lines[plan]
    assert all("causality" not in line for line in lines[:plan])


@pytest.mark.parametrize("seconds", [0.7, 2.0])
def test_an_audit_keeps_its_time_and_says_what_it_left_out(seconds: float, clock: Clock) -> None:
    def slow(tokens: np.ndarray) -> np.ndarray:
        clock.sleep(0.02)
        return uniform(tokens)

    report = run_audit(slow, vocab_size=64, seconds=seconds, now=clock.read)
    assert report.seconds == clock.now < seconds + 0.1
    assert report.verdict == "legal"
    gaps = [gap for probe in report.probes.values() for gap in probe.not_covered]
    assert any("want of time" in gap for gap in gaps)


def test_a_long_slow_stream_is_probed_on_its_beginning(clock: Clock) -> None:
    def slow(tokens: np.ndarray) -> np.ndarray:
        clock.sleep(len(tokens) * 2e-5)
        return uniform(tokens)

    tokens = pseudo_text(64, 8192)
    report = run_audit(slow, vocab_size=64, tokens=tokens, seconds=2.0, now=clock.read)
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
    assert tuple(value["probes"]) == tuple(PROBES)
    assert all(probe["ok"] is True for probe in value["probes"].values())
    assert value["command"] == (
        f"fairway audit {file}:score --vocab-size 64 --tokens {tmp_path / 't.npy'} --seconds 30"
    )
    assert report.probes["determinism"].details["fresh_nats"] == 0


@pytest.mark.parametrize(
    ("body", "words", "seconds"),
    [
        ("1 / 0", "ZeroDivisionError", 60.0),
        ("while True: pass", "no answer", 1.0),
        ("exit(4)", "SystemExit", 60.0),
    ],
)
def test_a_scorer_that_cannot_be_called_is_neither_legal_nor_illegal(
    tmp_path: Path, body: str, words: str, seconds: float
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
    assert "1 of 64 alternatives have no nats" in report.text()
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
        ({"tokens": np.arange(40), "num_bytes": -1}, "fewer bytes than none"),
        ({"tokens": np.arange(40), "tokenizer": 3}, "int is no tokenizer"),
        ({"vocab_size": 1}, "needs two of both"),
    ],
)
def test_unusable_arguments_are_user_errors(arguments: dict[str, Any], words: str) -> None:
    given: dict[str, Any] = {"vocab_size": 64} | arguments
    with pytest.raises(ValueError, match=words):
        run_audit(uniform, **given)


def test_an_implausible_score_is_noted() -> None:
    def certain(tokens: np.ndarray) -> np.ndarray:
        p = np.where((tokens[1:] - tokens[:-1]) % 64 == 1, 1 - 1e-6, 1e-6 / 63)
        return -np.log(p)

    report = run_audit(
        certain, vocab_size=64, tokens=np.arange(2, 130) % 64, limits=Limits(positions=2)
    )
    assert report.verdict == "legal"
    assert any("token counts alone" in note for note in report.notes)


PLUGIN = """
from fairway.audit import Case, Finding, ProbeResult

def cheap_repeats(case: Case) -> ProbeResult:
    \"\"\"A token that comes twice in a row may not be free the second time.\"\"\"
    nats = case.score(case.tokens.repeat(2))
    findings = () if nats[0::2].mean() > 1 else (Finding("repetition is free", ("B1",)),)
    return ProbeResult("any name", not findings, f"{len(nats):,} nats", findings)
"""


def test_a_probe_from_outside_is_asked_after_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "probes_of_a_user.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "mine.py").write_text(
        "import numpy as np\n"
        "def honest(t): return np.full(len(t) - 1, np.log(64))\n"
        "def repeats(t): return np.where(t[1:] == t[:-1], 1e-9, np.log(63))\n"
    )
    spec = "probes_of_a_user:cheap_repeats"
    for name, verdict in (("honest", "legal"), ("repeats", "illegal")):
        report = run_audit(
            f"{tmp_path / 'mine.py'}:{name}",
            vocab_size=64,
            tokens=pseudo_text(64, 64),
            limits=Limits(positions=1),
            probes=[spec],
        )
        assert report.verdict == verdict, report.text()
        assert tuple(report.probes) == (*PROBES, "cheap_repeats")
        assert report.probes["cheap_repeats"].ok == (verdict == "legal")
        assert report.to_json()["probes"]["cheap_repeats"]["summary"] == "127 nats"


def test_probes_are_functions_with_names_of_their_own() -> None:
    def coverage(case: Case) -> ProbeResult:
        return ProbeResult("coverage", False, "", (Finding("no"),))

    for probe, words in ((coverage, "already"), ("numpy:pi", "no function"), ("x.y:z", "import")):
        with pytest.raises(ValueError, match=words):
            run_audit(uniform, vocab_size=64, probes=[probe])
