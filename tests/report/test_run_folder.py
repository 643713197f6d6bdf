"""Run folders: what may be missing, and what a log may look like."""

import dataclasses
import json
from dataclasses import replace
from pathlib import Path

import pytest

from fairway.report.run_folder import TrainingCurve, read_curve, read_run
from fairway.result import write_result
from fairway.runtime.identity import json_sha256, sealed

from .run_results import (
    CERTIFICATE,
    PROOF,
    bare_result,
    full_result,
    recipe_data,
    scored_result,
    write_run,
)


def log(folder: Path, *lines: object, tail: str = "") -> Path:
    path = folder / "train.log"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + tail)
    return path


def test_a_run_needs_its_result_and_nothing_else(tmp_path: Path) -> None:
    write_result(tmp_path, full_result())
    run = read_run(tmp_path)
    assert run.result == full_result()
    assert (run.recipe, run.certificate, run.curve) == (None, None, TrainingCurve())
    with pytest.raises(ValueError, match=r"no result.json.*fairway run"):
        read_run(tmp_path / "elsewhere")


def test_only_training_steps_make_the_curve(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "r", full_result(), steps=4))
    assert run.curve.steps == (1, 2, 3, 4)
    assert run.curve.lr_scale == (0.75, 0.5, 0.25, 0.0)
    assert max(run.curve.losses) == 5.0


def test_a_run_that_was_stopped_half_way_can_be_read(tmp_path: Path) -> None:
    assert read_run(write_run(tmp_path / "r", bare_result())).result == bare_result()


def test_steps_done_again_after_a_restart_replace_the_earlier_ones(tmp_path: Path) -> None:
    first = [{"step": s, "train_loss": 9.0} for s in (1, 2, 3, 4)]
    again = [{"step": s, "train_loss": 1.0} for s in (3, 4, 5)]
    curve = read_curve(log(tmp_path, *first, *again))
    assert curve.steps == (1, 2, 3, 4, 5)
    assert curve.losses == (9.0, 9.0, 1.0, 1.0, 1.0)


def test_a_loss_that_is_no_number_is_no_point(tmp_path: Path) -> None:
    lines = [{"step": 1, "train_loss": "nan"}, {"step": 2, "train_loss": 1.0}, ["x"], {"step": 3}]
    assert read_curve(log(tmp_path, *lines)).steps == (2,)


def test_a_killed_run_may_leave_its_last_line_unfinished(tmp_path: Path) -> None:
    assert read_curve(log(tmp_path, {"step": 1, "loss": 2.0}, tail='{"step": 2, "lo')).steps == (1,)


def test_a_line_that_was_unfinished_when_the_run_went_on_is_passed_over(tmp_path: Path) -> None:
    tail = '{"step": 2, "lo\n{"step": 2, "loss": 1.0}\n'
    assert read_curve(log(tmp_path, {"step": 1, "loss": 2.0}, tail=tail)).steps == (1, 2)


def test_a_broken_line_elsewhere_is_named(tmp_path: Path) -> None:
    path = log(tmp_path, {"step": 1, "loss": 2.0}, tail='oops\n{"step": 2, "loss": 1.0}\n')
    with pytest.raises(ValueError, match="line 2 is not JSON"):
        read_curve(path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "result.json: Expecting"),
        ("[1]", "holds a list"),
        ("{}", "lacks 'recipe'"),
        ('{"notes": 1}', "has no field 'notes'"),
    ],
)
def test_a_result_that_is_none_is_named(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "result.json").write_text(text)
    with pytest.raises(ValueError, match=words):
        read_run(tmp_path)


def test_a_proof_without_what_it_claims_is_no_result(tmp_path: Path) -> None:
    data = scored_result().to_json()
    data["proof"] = dataclasses.asdict(PROOF) | {"claimed_bits_per_byte": None}
    (tmp_path / "result.json").write_text(json.dumps(data))
    with pytest.raises(ValueError, match="claimed_bits_per_byte is None"):
        read_run(tmp_path)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("recipe.json", "{", "recipe.json: .*writes it again"),
        ("recipe.json", "[1]", "recipe.json: it holds a list"),
        ("certificate.json", "{", "certificate.json: .*`fairway prove` writes it again"),
        ("certificate.json", "[1]", "certificate.json: this is not a certificate"),
        ("certificate.json", '{"artifact_sha256": "ab"}', "certificate.json: .*lacks"),
    ],
)
def test_a_file_that_is_not_what_it_should_be_is_named(
    tmp_path: Path, name: str, text: str, words: str
) -> None:
    write_result(tmp_path, bare_result())
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=words):
        read_run(tmp_path)


def described_run(folder: Path, seed: int) -> Path:
    recipe = recipe_data(seed=seed)
    made = {"recipe": recipe, "versions": {"fairway": "0.1.0"}}
    result = replace(full_result(seed=seed), made_with=json_sha256(made))
    write_run(folder, result, recipe)
    (folder / "run.json").write_text(json.dumps(sealed({"made_with": made})))
    return folder


def test_a_file_of_the_run_next_door_is_no_part_of_the_page(tmp_path: Path) -> None:
    ours, theirs = (described_run(tmp_path / f"run{seed}", seed) for seed in (1, 2))
    whole = read_run(ours).result
    for name in ("result.json", "recipe.json", "run.json"):
        before = (ours / name).read_bytes()
        (ours / name).write_bytes((theirs / name).read_bytes())
        with pytest.raises(ValueError, match=r"another run|two runs"):
            read_run(ours)
        (ours / name).write_bytes(before)
    assert read_run(ours).result == whole


def test_a_certificate_of_another_model_is_no_proof_of_this_run(tmp_path: Path) -> None:
    run = write_run(tmp_path / "r", full_result())
    held = json.loads(CERTIFICATE.to_json())
    (run / "certificate.json").write_text(json.dumps(held | {"artifact_sha256": "ab" * 32}))
    assert read_run(run).certificate is not None
    (run / "certificate.json").write_text(json.dumps(held))
    with pytest.raises(ValueError, match="certifies another model"):
        read_run(run)
