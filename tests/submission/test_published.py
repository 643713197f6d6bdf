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


def test_the_log_of_another_model_is_found_by_what_it_ends_with(tmp_path: Path) -> None:
    """As in #86: three seeds on paper, one log, and that of another model."""
    held = {"val_bpb": 1.15015359, "seeds": [1337, 42, 123], "train_steps_mean": 10070}
    held["model_params"] = 26501720
    (tmp_path / "submission.json").write_text(json.dumps(held))
    (tmp_path / "train.log").write_text(
        "model_params:21778504\nseed:1337\n"
        "stopping_early: wallclock_cap train_time:600040ms step:12329/20000\n"
        "final_sliding_window_exact val_loss:1.96976839 val_bpb:1.16660881\n"
    )
    found = answers(tmp_path)
    assert found["mean"][0] == found["steps"][0] == found["number of seeds"][0] == "fail"
    assert "printed in no log, and they end with 1.16661" in found["mean"][1]
    assert found["steps"][1] == "10,070 on average stated, 12,329 printed"
    assert found["number of seeds"][1] == "3 seeds, and no log of seed 123, 42: 1 in all"
    assert found["parameters"][0] == "fail"
    assert "26,501,720 are stated, and 21,778,504 printed" in found["parameters"][1]


def with_each(record: Path, **lines: str) -> None:
    """One more line in each log; "{}" is its number, from 0 up."""
    for number, log in enumerate(sorted(record.glob("*.log"))):
        more = "".join(f"{line.format(number)}\n" for line in lines.values())
        log.write_text(log.read_text() + more)


def test_seeds_that_ran_other_scripts_are_named(record: Path) -> None:
    """As in #1412."""
    (record / "train_gpt_decode.py").write_text("# " * 40)
    assert "8 bytes as it lies there, 80 more of Python beside it" in answers(record)["code"][1]
    with_each(record, code="Code size: 7868{} bytes")
    answer, words = answers(record)["code"]
    assert (answer, "78,680 and 78,681 and 78,682 bytes" in words) == ("fail", True)


def test_a_size_that_no_log_prints_is_named(record: Path) -> None:
    """As in #1477: one seed's size under every seed."""
    log = record / "train_seed314.log"
    log.write_text(log.read_text().replace("15,990,000", "15,989,602"))
    answer, words = answers(record)["bytes, seed 314"]
    assert (answer, words) == (
        "fail",
        "15,990,000 bytes are stated, and its log prints 15,989,602",
    )


def test_a_stage_that_went_wrong_after_the_score_is_said(record: Path) -> None:
    """As in #1334, whose score is that of the stage before."""
    with_each(record, ttt="final_int6_ttt val_loss:3.07421378 val_bpb:1.33603200")
    assert answers(record)["score, seed 42"] == (
        "pass",
        "1.081, as its log prints; it ends with 1.336032",
    )


def test_seeds_may_be_told_as_results(record: Path) -> None:
    """As in #1413."""
    path = record / "submission.json"
    told = json.loads(path.read_text())
    told["seeds"] = told.pop("seed_results")
    path.write_text(json.dumps(told))
    found = answers(record)
    assert found["number of seeds"] == ("pass", "314, 42, 999")
    assert found["score, seed 999"][0] == "pass"


@pytest.mark.parametrize(
    ("line", "answer", "said"),
    [
        ("val_tokens: 40540160", "pass", "all of it, in 8,192 pieces"),
        ("val_loader:shards pattern=x_*.bin tokens:62021632", "pass", "in 1,024 pieces"),
        ("val_tokens: 9662464", "unknown", "a part of the text, or a tokenizer"),
    ],
)
def test_how_much_was_scored_is_known_where_it_is_printed(
    line: str, answer: str, said: str, record: Path
) -> None:
    with_each(record, tokens=line)
    found = answers(record)["text"]
    assert found[0] == answer
    assert said in found[1]


def test_source_before_a_log_is_not_taken_for_what_it_prints(record: Path) -> None:
    for log in record.glob("*.log"):
        source = 'log(f"seed: 7")\n    "Code size: 5 bytes"\n# seed 8\nval_tokens = 5\n'
        log.write_text(source + log.read_text())
    found = answers(record)
    assert found["number of seeds"] == ("pass", "314, 42, 999")
    assert (found["code"][0], found["text"][0]) == ("unknown", "unknown")


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e400"])
def test_a_number_that_is_none_agrees_with_nothing(number: str, record: Path) -> None:
    path = record / "submission.json"
    path.write_text(path.read_text().replace("1.081,", f"{number},", 1))
    answer, words = answers(record)["files"]
    assert answer == "fail"
    assert f"the number {number}" in words


def test_a_log_that_is_too_long_is_named_before_it_is_read(record: Path) -> None:
    with (record / "train_seed42.log").open("r+b") as file:
        file.truncate(1 << 34)
    with pytest.raises(ValueError, match=r"train_seed42.log has 17,179,869,184 bytes"):
        judge_published(record, CHALLENGE)


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
