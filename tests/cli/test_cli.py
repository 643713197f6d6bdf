import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fairway.cli import COMMANDS, main


def test_help_lists_every_command(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in COMMANDS)


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
        (["train", "pocket"], "name the data"),
        (["run"], "usage: fairway run RECIPE DATA"),
        (["train", "pocket", "/nowhere", "--set", "seed"], "PATH=JSON"),
        (["train", "pocket", "/nowhere", "--set", "sead=3"], "no field 'sead'"),
        (["train", "pr1413", "/nowhere", "--env", "/nowhere/env.json"], "No such file"),
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
