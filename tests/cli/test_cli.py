import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import fairway
from fairway.cli import COMMANDS, main
from fairway.cli.signatures import command_name

NAMES = [command_name(command) for command in COMMANDS]
# As a process would: nothing is there that another test has imported.
LIGHT = """
import sys
from fairway.cli import main
status = main(sys.argv[1:])
assert status == 0 and "torch" not in sys.modules, "PyTorch was imported"
"""


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"]])
def test_help_lists_every_command(argv: list[str], capsys: pytest.CaptureFixture) -> None:
    assert main(argv) == 0
    shown = capsys.readouterr().out
    assert all(f" {name} " in shown for name in NAMES)


def test_the_version_is_told(capsys: pytest.CaptureFixture) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"fairway {fairway.__version__}\n"


@pytest.mark.parametrize(
    "argv",
    [["--help"], ["recipes"], ["--version"], ["completion", "bash"]]
    + [[name, "--help"] for name in NAMES],
    ids=" ".join,
)
def test_help_and_the_list_of_recipes_cost_no_pytorch(argv: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIGHT, *argv], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout


@pytest.mark.parametrize(
    ("argv", "meant"),
    [
        (["scor", "a", "b"], "did you mean score?"),
        (["recipe"], "did you mean recipes?"),
        (["recipes", "pr141"], "did you mean pr1413?"),
        (["recipes", "--dif", "pocket"], "--diff"),
        (["run", "pocket", "data", "--train.secnds", "5"], "--train.seconds"),
        (["run", "pocket", "data", "--ouut", "x"], "--out"),
    ],
)
def test_what_is_nearly_right_is_told_what_was_meant(
    argv: list[str], meant: str, capsys: pytest.CaptureFixture
) -> None:
    assert main(argv) == 2
    assert meant in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "command", "kind", "said"),
    [
        (["recipes", "nope"], "recipes", "ValueError", "unknown recipe 'nope'"),
        (["recipes", "--nope"], "recipes", "BadWords", "--nope"),
        (["nope"], None, "BadWords", "Expected one of"),
        (["run", "pocket"], "run", "BadWords", "DATA"),
        (["verify", "/nowhere/p", "/nowhere/m"], "verify", "ValueError", "no model at"),
    ],
)
def test_a_failure_is_a_json_object_too(
    argv: list[str], command: str | None, kind: str, said: str, capsys: pytest.CaptureFixture
) -> None:
    assert main([*argv, "--json"]) == 2
    shown = capsys.readouterr()
    error = json.loads(shown.out.splitlines()[-1])["error"]
    assert (error["command"], error["type"], error["exit_status"]) == (command, kind, 2)
    assert said in error["message"]
    assert shown.err  # people are told as well


def test_a_defect_of_ours_is_told_as_json_and_by_its_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr("fairway.recipes.registry.recipe", lambda name: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["recipes", "pocket", "--json"])
    assert json.loads(capsys.readouterr().out)["error"]["type"] == "ZeroDivisionError"


def test_recipes_have_one_name_and_take_the_field_s_other_ones(
    capsys: pytest.CaptureFixture,
) -> None:
    for other, name in (("baseline", "naive_baseline"), ("pr254", "sota254")):
        assert main(["recipes", other, "--json"]) == 0
        assert json.loads(capsys.readouterr().out.splitlines()[-1])["name"] == name


@pytest.mark.parametrize("argv", [["recipes"], ["recipes", "pr1413", "--json"]])
def test_who_reads_no_further_is_told_nothing(argv: list[str]) -> None:
    """As in `fairway recipes | head -1`: exit status as of any program that SIGPIPE ends."""
    here, there = os.pipe()
    os.close(here)  # nobody reads
    command = [sys.executable, "-m", "fairway", *argv]
    done = subprocess.run(command, stdout=there, stderr=subprocess.PIPE, check=False)
    os.close(there)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, b"")


def test_streams_that_are_closed_are_nowhere_to_write_to() -> None:
    script = f"exec {sys.executable} -m fairway recipes <&- >&- 2>&-"
    assert subprocess.run(["bash", "-c", script], check=False).returncode == 0


def test_json_is_the_last_line_of_standard_output(capsys: pytest.CaptureFixture) -> None:
    assert main(["recipes", "--json"]) == 0
    assert "pocket" in json.loads(capsys.readouterr().out.splitlines()[-1])["recipes"]


def test_a_recipe_shows_its_parameters(capsys: pytest.CaptureFixture) -> None:
    assert main(["recipes", "pr1413", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["params"] == 35_943_512


def test_a_difference_holds_just_what_changed(capsys: pytest.CaptureFixture) -> None:
    assert main(["recipes", "pr1413", "--diff", "pr1394", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert "model.attention.qk_gain" in shown["changes"]
    assert not any(path.startswith("quant") for path in shown["changes"])


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["recipes", "pr9999"], "unknown recipe"),
        (["run", "pocket", "/nowhere"], "fairway prepare"),
        (["score", "/nowhere/model.fwy", "/nowhere"], "no model at"),
        (["prepare", "/nowhere/out", "/nowhere/text"], "--vocab-size"),
        (["verify", "/nowhere/proof", "/nowhere/model"], "no model at"),
        (["audit", "/nowhere/model", "/nowhere"], "no data folder at"),
        (["compress", "/nowhere/model", "file", "out"], "no model at"),
        (["generate", "/nowhere/model"], "no model at"),
        (["pack", "/nowhere/run", "/nowhere"], "no run folder or model"),
        (["train", "pocket"], "fairway prepare"),
        (["run"], "RECIPE"),
        (["run", "--train.steps", "5", "pocket", "/nowhere"], "RECIPE comes before"),
        (["score", "/nowhere/m.fwy"], "no model at"),
        (["recipes", "--diff", "pocket"], "name the recipe to compare"),
        (["audit", "x.py:score"], "--vocab-size"),
        (["audit", "x.py:score", "data", "--vocab-size", "9"], "DATA: that is for a model"),
        (["audit", "m.fwy", "data", "--num-bytes", "9"], "--num-bytes: that is for a scorer"),
        (["audit", "m.fwy"], "name the data"),
        (["report"], "name a run folder"),
        (["train", "pocket", "/nowhere", "--set", "seed"], "PATH=JSON"),
        (["train", "pocket", "/nowhere", "--set", "sead=3"], "no field 'sead'"),
        (["train", "pr1413", "/nowhere", "--env", "/nowhere/env.json"], "there is no file"),
        (["recipes", "pr1413", "--against", sys.executable], "is not JSON"),
        (["plan", "pocket", "--seconds", "nan"], "nan is no number to reckon with"),
        (["plan", "pocket", "--seconds", "inf"], "inf is no number to reckon with"),
        (["run", "pocket", "/nowhere", "--train.seconds", "nan"], "nan is no number"),
        (["plan", "pocket", "--threads", "0"], "threads=0: one is the least"),
        (["score", "m.fwy", "d", "--tokens", "1"], "two are the least"),
        (["score", "m.fwy", "d", "--budget-seconds", "0"], "no text fits no time"),
        (["score", "m.fwy", "d", "--fit"], "give both"),
        (["prove", "m.fwy", "d", "--out", "/"], "name a file"),
        (["verify", "p", "m.fwy", "--text", "/nowhere/x"], "no folder /nowhere"),
        (["tune", "m.fwy", "d", "--out", "/nowhere/x"], "no folder /nowhere"),
        (["compress", "m.fwy", "f", "/nowhere/x"], "no folder /nowhere"),
        (["compress", "m.fwy", "f", "o", "--threads", "0"], "threads=0"),
        (["effects", "--csv", "/nowhere/x"], "no folder /nowhere"),
        (["lm-eval", "m.fwy", "--tasks", "a", "--out", "/nowhere/x"], "no folder /nowhere"),
        (
            [
                "import",
                "a.pt",
                "--lineage",
                "pr1413",
                "--env",
                "e",
                "--tokenizer",
                "t",
                "--out",
                "/",
            ],
            "name a file",
        ),
        (["audit", "m.fwy", "data", "--seconds", "-1"], "nothing is asked in no time"),
    ],
)
def test_what_the_user_can_mend_ends_with_two_and_no_traceback(
    argv: list[str], message: str, capsys: pytest.CaptureFixture
) -> None:
    assert main(argv) == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert "Traceback" not in shown


def test_an_illegal_scorer_ends_with_one(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "cheat.py").write_text(
        "import numpy as np\n"
        "def score(tokens):\n"
        "    counts = np.bincount(tokens, minlength=16)  # of the whole text, the future too\n"
        "    return -np.log(counts[tokens[1:]] / counts.sum())\n"
    )
    scorer = f"{tmp_path / 'cheat.py'}:score"
    assert main(["audit", scorer, "--vocab-size", "16", "--seconds", "20", "--json"]) == 1
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["verdict"] == "illegal"
