"""An honest folder passes; ten forged ones are refused, each by name."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fairway.audit.findings import AuditReport, ProbeResult
from fairway.result import RESULT
from fairway.runs.record import ARTIFACT
from fairway.runs.rules import RuleSet
from fairway.runtime.files import file_sha256
from fairway.runtime.identity import sealed, unsealed
from fairway.runtime.setup import LOG
from fairway.submission.case import Finding, read_case
from fairway.submission.check import exit_status, judge
from fairway.submission.folder import SUBMISSION, About, seed_name, submit
from fairway.submission.script import SCRIPT, pack_source, unpack_script
from fairway.tokens.shards import DataFolder

from .conftest import Run, tiny
from .test_script import started

# Packages of ours that a script may do without, as they are imported.
OTHERS = {"safetensors", "zstandard", "pyppmd", "pyarrow", "tyro", "rich", "jinja2", "matplotlib"}
OTHERS |= {"scipy", "optuna", "huggingface_hub", "python_minifier", "transformers"}

RULES = RuleSet(name="tiny", cap_bytes=1_000_000, train_seconds=600.0, eval_seconds=600.0)
SEEDS = (0, 42, 1234)
Forge = Callable[[Path], None]


@pytest.fixture(scope="session")
def runs(run: Run, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three seeds and one of another recipe."""
    place = tmp_path_factory.mktemp("runs")
    made = [run(tiny("naive_baseline", s), place / str(s), proof_tokens=20) for s in SEEDS]
    return [*made, run(tiny("pr1394"), place / "other")]


@pytest.fixture(scope="session")
def honest(runs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("honest") / "record"
    submit(runs[:3], out, About(author="us"))
    return out


@pytest.fixture
def forged(honest: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(honest, tmp_path / "record"))


def answers(folder: Path, data: DataFolder | None = None, **options: Any) -> list[Finding]:
    options = {"seconds": 0.0, "rules": RULES, **options}
    return judge(read_case(folder, data=data, **options))


def failed(findings: list[Finding]) -> dict[str, str]:
    return {one.check: one.said for one in findings if one.answer == "fail"}


def test_an_honest_folder_passes_and_says_what_cannot_be_known(
    honest: Path, song: DataFolder
) -> None:
    found = answers(honest, song)
    assert not failed(found), failed(found)
    assert exit_status(found) == 0
    passed = {one.check for one in found if one.answer == "pass"}
    assert {"files", "code", "number of seeds", "mean", "scored again, seed 42"} <= passed
    assert {"proof, seed 0", "bytes, seed 1234", "log, seed 0", "model, seed 0"} <= passed
    unknown = {one.check for one in found if one.answer == "unknown"}
    assert {"selection", "significance"} <= unknown


def test_every_package_that_the_script_imports_is_listed(honest: Path, song: DataFolder) -> None:
    """Asked of a process in which nothing else from outside can be imported."""
    listed = (honest / "requirements.txt").read_text().split()
    assert all("==" in line for line in listed)
    packages = {line.partition("==")[0] for line in listed}
    assert {"torch", "numpy", "constriction", "brotli", "sentencepiece", "protobuf"} <= packages
    assert started(honest / SCRIPT, song.path, 42, "--eval", blocked=OTHERS - packages)["bytes"]


def test_the_same_runs_give_the_same_script(honest: Path, runs: list[Path]) -> None:
    assert (honest / SCRIPT).read_bytes() == (runs[2] / SCRIPT).read_bytes()


def edited(path: Path, change: Callable[[dict], None], *, seal: bool = False) -> None:
    held = unsealed(path.read_bytes()) if seal else json.loads(path.read_bytes())
    change(held)
    path.write_text(json.dumps(sealed(held) if seal else held))


def wrong_log(folder: Path) -> None:
    shutil.copy(folder / seed_name(LOG, 42), folder / seed_name(LOG, 0))


def foreign_seed(folder: Path) -> None:
    edited(
        folder / seed_name("recipe.json", 1234),
        lambda recipe: recipe["train"]["optimizer"]["muon"].update(lr=0.5),
        seal=True,
    )


def other_code(folder: Path) -> None:
    source = unpack_script((folder / SCRIPT).read_bytes())
    (folder / SCRIPT).write_bytes(pack_source(source + "\nprint('and more')"))


def bytes_over(folder: Path) -> None:
    model = folder / seed_name(ARTIFACT, 0)
    model.write_bytes(model.read_bytes() + bytes(1_000_000))


def clock_over(folder: Path) -> None:
    path = folder / seed_name(RESULT, 0)
    edited(path, lambda result: result["train"].update(seconds=646.0), seal=True)


def leaky_evaluator(folder: Path) -> None:
    def leak(result: dict) -> None:
        report = AuditReport(
            "model.fwy", {"causality": ProbeResult("causality", False, "sees the future")}
        )
        result["audit"] = report.to_json()

    edited(folder / seed_name(RESULT, 0), leak, seal=True)


def edited_score(folder: Path) -> None:
    edited(folder / SUBMISSION, lambda told: told["seed_results"]["42"].update(val_bpb=1.0))


def swapped_artifact(folder: Path) -> None:
    shutil.copy(folder / seed_name(ARTIFACT, 42), folder / seed_name(ARTIFACT, 0))


def best_of_ten(folder: Path) -> None:
    edited(folder / SUBMISSION, lambda told: told.update(runs_known=10))


def cut_text(folder: Path) -> None:
    for seed in SEEDS:
        path = folder / seed_name("recipe.json", seed)
        edited(path, lambda recipe: recipe["tokens"].update(val_tokens=50), seal=True)


@pytest.mark.parametrize(
    ("forge", "check", "said"),
    [
        (wrong_log, "log, seed 0", "wrong log"),
        (foreign_seed, "seed 1234", "foreign: another recipe"),
        (other_code, "code", "not equal to source"),
        (bytes_over, "bytes, seed 0", "over 1,000,000"),
        (clock_over, "clock of training, seed 0", "646.00 s of 600"),
        (leaky_evaluator, "audit, seed 0", "leaky evaluator"),
        (edited_score, "score, seed 42", "edited: val_bpb"),
        (swapped_artifact, "model, seed 0", "swapped"),
        (best_of_ten, "selection", "3 of 10 runs"),
        (cut_text, "text, seed 0", "cut: only the first 50 tokens"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_forged_folder_is_refused_by_name(
    forge: Forge, check: str, said: str, forged: Path
) -> None:
    forge(forged)
    found = answers(forged)
    assert said in failed(found).get(check, ""), failed(found)
    assert exit_status(found) == 1
    assert all(one.mend for one in found if one.answer == "fail")


def test_a_score_that_is_edited_everywhere_is_not_what_the_model_scores(
    forged: Path, song: DataFolder
) -> None:
    """Result, log and summary say the same; with the text at hand the model is asked."""
    log = forged / seed_name(LOG, 0)
    told = json.loads((forged / SUBMISSION).read_bytes())["seed_results"]["0"]
    half = {name: told[name] / 2 for name in ("val_bpb", "val_loss")}

    def halved(result: dict) -> None:
        nats = result["score"]["nats"] / 2
        result["score"].update(bits_per_byte=half["val_bpb"], nats=nats)
        log.write_text(log.read_text() + json.dumps({"event": "facts", "nats": nats}) + "\n")

    edited(forged / seed_name(RESULT, 0), halved, seal=True)
    half["log_sha256"] = file_sha256(log)
    edited(forged / SUBMISSION, lambda held: held["seed_results"]["0"].update(half))
    found = failed(answers(forged, song))
    assert set(found) == {"mean", "scored again, seed 0"}
    assert "edited" in found["scored again, seed 0"]


def test_a_best_of_ten_is_seen_in_the_database(honest: Path) -> None:
    assert "3 of 10" in failed(answers(honest, known=10))["selection"]


def test_a_foreign_file_is_named(forged: Path) -> None:
    (forged / "old_run.log").write_text("")
    assert "old_run.log" in failed(answers(forged))["files"]


def test_a_result_that_was_edited_without_its_seal_is_refused(forged: Path) -> None:
    edited(forged / seed_name(RESULT, 0), lambda result: result.update(seed=1))
    with pytest.raises(ValueError, match="was edited, or is damaged"):
        read_case(forged, rules=RULES)


def test_runs_that_are_no_seeds_of_one_thing_are_named_and_nothing_is_written(
    runs: list[Path], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="no further seed of"):
        submit([runs[0], runs[3]], tmp_path / "out", About())
    with pytest.raises(ValueError, match="given twice"):
        submit([runs[0], runs[0]], tmp_path / "out", About())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "said"), [(ARTIFACT, "not the file that was scored"), (LOG, "log of another run")]
)
def test_a_run_with_a_file_of_another_is_not_handed_in(
    name: str, said: str, runs: list[Path], tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(runs[0], tmp_path / "run"))
    shutil.copy(runs[1] / name, copy / name)
    with pytest.raises(ValueError, match=said):
        submit([copy], tmp_path / "out", About())
    assert not (tmp_path / "out").exists()
