"""An honest folder passes; ten forged ones are refused, each by name."""

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fairway.audit.findings import AuditReport, ProbeResult
from fairway.result import RESULT
from fairway.runs.database import DATABASE, RunsDatabase
from fairway.runs.record import ARTIFACT, RunRecord
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


def test_a_link_is_named(forged: Path, tmp_path: Path) -> None:
    """What it points to may be another file tomorrow."""
    (forged / "README.md").rename(tmp_path / "elsewhere")
    (forged / "README.md").symlink_to(tmp_path / "elsewhere")
    assert failed(answers(forged))["files"] == "links: README.md"


@pytest.mark.parametrize("name", [seed_name(LOG, 42), SUBMISSION])
def test_a_file_that_is_too_long_is_named_before_it_is_read(name: str, forged: Path) -> None:
    with (forged / name).open("r+b") as file:
        file.truncate(1 << 34)
    with pytest.raises(ValueError, match=rf"{name}.* 17,179,869,184 bytes"):
        read_case(forged, rules=RULES)


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e999"])
def test_a_number_that_is_none_is_refused(number: str, forged: Path) -> None:
    path = forged / SUBMISSION
    told = json.loads(path.read_text())
    path.write_text(path.read_text().replace(str(told["val_bpb"]), number, 1))
    with pytest.raises(ValueError, match=f"the number {number}"):
        read_case(forged, rules=RULES)


def test_seeds_that_are_no_numbers_do_not_count(forged: Path) -> None:
    edited(forged / SUBMISSION, lambda told: told.update(seeds=[0, 42, "1234"]))
    with pytest.raises(ValueError, match="lists no seeds"):
        read_case(forged, rules=RULES)


def everywhere(folder: Path, seed: int, change: Callable[[dict], None], **facts: object) -> None:
    """A result changed, its log and the summary with it, as far as their words go."""
    edited(folder / seed_name(RESULT, seed), change, seal=True)
    log = folder / seed_name(LOG, seed)
    log.write_text(log.read_text() + json.dumps({"event": "facts", **facts}) + "\n")
    edited(
        folder / SUBMISSION,
        lambda told: told["seed_results"][str(seed)].update(log_sha256=file_sha256(log)),
    )


def test_a_model_with_a_tail_is_refused_though_every_hash_agrees(forged: Path) -> None:
    model = forged / seed_name(ARTIFACT, 0)
    model.write_bytes(model.read_bytes() + b"tail")
    sha256 = file_sha256(model)

    def hide(result: dict) -> None:
        artifact = result["artifact"]
        artifact.update(sha256=sha256, bytes_total=artifact["bytes_total"] + 4)

    everywhere(forged, 0, hide, model_sha256=sha256)
    held = json.loads((forged / seed_name(RESULT, 0)).read_bytes())["artifact"]["bytes_total"]

    def tell(told: dict) -> None:
        told["seed_results"]["0"].update(model_sha256=sha256, artifact_bytes=held)
        told["bytes_total"] = max(one["artifact_bytes"] for one in told["seed_results"].values())

    edited(forged / SUBMISSION, tell)
    found = failed(answers(forged))
    assert "model, seed 0" in found
    assert found["proof, seed 0"] == "it is of another model"
    assert not any(check.startswith(("score", "log", "bytes")) for check in found)


def test_what_cannot_be_read_ends_no_other_question(forged: Path, song: DataFolder) -> None:
    """With the text at hand every model is opened, and one cannot be."""
    (forged / seed_name(ARTIFACT, 42)).write_bytes(b"FWY1, and nothing more")
    found = answers(forged, song)
    said = failed(found)
    assert {"model, seed 42", "bytes, seed 42", "scores", "proof, seed 42"} <= set(said), said
    assert {"significance", "proof, seed 0"} <= {one.check for one in found}


@pytest.mark.parametrize("name", ["settled", "made_with"])
def test_a_description_without_its_parts_is_refused(name: str, forged: Path) -> None:
    edited(forged / seed_name("run.json", 0), lambda run: run.pop(name), seal=True)
    if name == "made_with":
        with pytest.raises(ValueError, match="made_with of seed 0"):
            read_case(forged, rules=RULES)
    else:
        assert "settled is None" in failed(answers(forged))["code"]


def test_a_seed_that_is_another_under_a_new_number_is_named(forged: Path) -> None:
    """The run of seed 42 once more, as if it were 1234's."""
    for name in (ARTIFACT, "proof.fwp", "certificate.json"):
        shutil.copy(forged / seed_name(name, 42), forged / seed_name(name, 1234))
    ours = json.loads((forged / seed_name(RESULT, 42)).read_bytes())
    kept = {name: ours[name] for name in ("artifact", "score", "proof")}
    everywhere(forged, 1234, lambda result: result.update(kept), nats=ours["score"]["nats"])
    found = failed(answers(forged))
    for seed in (42, 1234):
        assert found[f"seed {seed}"] == "foreign: its model is that of another seed, too"


@pytest.mark.parametrize("name", ["steps", "train_time_s", "artifact_bytes", "val_loss"])
def test_a_figure_that_the_run_does_not_give_is_named(name: str, forged: Path) -> None:
    edited(forged / SUBMISSION, lambda told: told["seed_results"]["42"].update({name: 7}))
    assert failed(answers(forged))["score, seed 42"] == f"edited: {name} not as in its run"


def test_the_largest_size_and_the_spread_are_those_of_the_seeds(forged: Path) -> None:
    edited(forged / SUBMISSION, lambda told: told.update(bytes_total=1, val_bpb_std=0.0))
    said = failed(answers(forged))["mean"]
    assert said == "edited: val_bpb_std, bytes_total not as the seeds give"


def test_a_comment_that_makes_other_comments_statements_is_seen(forged: Path) -> None:
    """Python reads a script's bytes as its first line says; in UTF-8 both are the same program."""
    source = unpack_script((forged / SCRIPT).read_bytes())
    hidden = f"# coding: utf-7\n# +AAo-print('and more')\n{source}"
    (forged / SCRIPT).write_bytes(pack_source(hidden))
    assert "not equal to source" in failed(answers(forged))["code"]


@pytest.mark.parametrize("line", ["left-pad==1.0", "torch @ file:///tmp/torch", "-r more.txt"])
def test_a_package_that_the_script_does_not_import_is_named(line: str, forged: Path) -> None:
    path = forged / "requirements.txt"
    path.write_text(f"{path.read_text()}{line}\n")
    assert line.partition("==")[0] in failed(answers(forged))["packages"]


def test_a_result_that_was_edited_without_its_seal_is_refused(forged: Path) -> None:
    edited(forged / seed_name(RESULT, 0), lambda result: result.update(seed=1))
    with pytest.raises(ValueError, match="was edited, or is damaged"):
        read_case(forged, rules=RULES)


def test_a_database_that_knows_none_of_the_runs_says_nothing_of_them(honest: Path) -> None:
    found = {one.check: one for one in answers(honest, known=0)}["selection"]
    assert (found.answer, found.said) == (
        "unknown",
        "the database knows of 0 of these 3 runs",
    )


def test_how_many_runs_there_were_is_told_by_the_database_beside_them(
    runs: list[Path], tmp_path: Path
) -> None:
    place = tmp_path / "runs"
    copies = [Path(shutil.copytree(run, place / run.name)) for run in runs[:3]]
    RunsDatabase(place / DATABASE).add([RunRecord.of(run) for run in copies])
    out = tmp_path / "record"
    assert submit(copies[:2], out, About())["runs_known"] == 3
    assert "2 of 3 runs" in failed(answers(out))["selection"]


KILLED = """
import os, shutil, signal, sys
from pathlib import Path
from fairway.submission.folder import About, submit

copies = 0
copy = shutil.copyfile

def dying(source, target):
    global copies
    copies += 1
    if copies == 9:
        os.kill(os.getpid(), signal.SIGKILL)
    return copy(source, target)

shutil.copyfile = dying
submit([Path(run) for run in sys.argv[2:]], Path(sys.argv[1]), About(), overwrite=True)
"""


def test_a_submit_that_is_killed_leaves_what_was_there(
    runs: list[Path], forged: Path, tmp_path: Path
) -> None:
    before = {path.name: path.read_bytes() for path in forged.iterdir()}
    words = [sys.executable, "-c", KILLED, str(forged), *map(str, runs[:3])]
    done = subprocess.run(words, check=False, capture_output=True)
    assert done.returncode == -signal.SIGKILL
    assert {path.name: path.read_bytes() for path in forged.iterdir()} == before
    submit(runs[:3], forged, About(author="us"), overwrite=True)
    assert not failed(answers(forged))


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
