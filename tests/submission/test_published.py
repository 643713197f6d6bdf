"""Folders of the field's: what they say is judged, and what they do not say is said."""

import json
from pathlib import Path

import pytest

from fairway.runs.rules import CHALLENGE
from fairway.submission.published import judge_published


@pytest.fixture
def record(tmp_path: Path) -> Path:
    """As most are: seeds, sizes and times in words of their own."""
    results = {}
    for seed, bpb in ((42, 1.0810), (314, 1.0808), (999, 1.0812)):
        log = f"seed: {seed}\nstep:5000 train_time:588123ms\nfinal val_bpb:{bpb:.8f} "
        log += "eval_time:401000ms\nTotal submission size quantized+brotli: 15,990,000 bytes\n"
        (tmp_path / f"train_seed{seed}.log").write_text(log)
        results[str(seed)] = {"val_bpb": bpb, "artifact_bytes": 15_990_000}
    held = {"name": "a record", "val_bpb": 1.0810, "seeds": [42, 314, 999], "seed_results": results}
    (tmp_path / "submission.json").write_text(json.dumps(held))
    (tmp_path / "train_gpt.py").write_text("print(1)")
    (tmp_path / "README.md").write_text("words")
    return tmp_path


def answers(folder: Path) -> dict[str, tuple[str, str]]:
    return {f.check: (f.answer, f.said) for f in judge_published(folder, CHALLENGE)}


def test_a_record_that_keeps_the_rules_fails_nothing(record: Path) -> None:
    found = answers(record)
    assert not [check for check, (answer, _) in found.items() if answer == "fail"]
    passed = {check for check, (answer, _) in found.items() if answer == "pass"}
    assert {"files", "bytes", "clock of training", "clock of evaluation", "mean"} <= passed
    unknown = {check for check, (answer, _) in found.items() if answer == "unknown"}
    assert {"code", "model", "audit", "proof", "selection", "significance"} <= unknown


@pytest.mark.parametrize(
    ("old", "new", "check", "said"),
    [
        ("15,990,000", "16,024,793", "bytes", "24,793 over"),
        ("588123", "646000", "clock of training", "646.00 s"),
        ("401000", "895000", "clock of evaluation", "895.00 s"),
        ("seed: 999", "seed: 7", "number of seeds", "foreign: train_seed999.log prints seed 7"),
        ("1.08120000", "1.10000000", "score, seed 999", "printed in no log of it"),
    ],
)
def test_what_its_logs_say_against_it_is_found(
    old: str, new: str, check: str, said: str, record: Path
) -> None:
    log = record / "train_seed999.log"
    log.write_text(log.read_text().replace(old, new))
    answer, words = answers(record)[check]
    assert answer == "fail"
    assert said in words


def test_the_best_seed_in_place_of_the_mean_is_named(record: Path) -> None:
    path = record / "submission.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"val_bpb": 1.0701}))
    assert answers(record)["mean"] == ("fail", "1.0701, and the seeds' mean is 1.08100")


def test_a_folder_of_a_log_alone_is_judged_as_far_as_it_goes(tmp_path: Path) -> None:
    (tmp_path / "train0.txt").write_text("nothing of note")
    found = answers(tmp_path)
    assert found["files"][0] == "fail"
    assert "README.md" in found["files"][1]
    assert found["bytes"][0] == found["mean"][0] == "unknown"
