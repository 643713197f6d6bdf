import io
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fairway.runtime.run_log import RunLog


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def lines_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def run_stage(log: RunLog, now: list[float], *, total: int, seconds_each: float) -> None:
    with log.stage("train", total=total) as stage:
        for done in range(1, total + 1):
            now[0] += seconds_each
            stage.update(done, loss=1.0 / done)


def test_a_torn_line_stays_alone(tmp_path: Path) -> None:
    """As a full disk leaves it: what the next start says begins a line of its own."""
    path = tmp_path / "train.log"
    whole, torn = b'{"event": "say"}\n', b'{"event": "upda'
    path.write_bytes(whole + torn)
    with RunLog(path, quiet=True) as log:
        log.write("again")
    lines = path.read_bytes().splitlines(keepends=True)
    assert lines[:2] == [whole, torn + b"\n"]
    assert json.loads(lines[2])["event"] == "again"
    assert len(lines) == 3


def test_importing_the_log_does_not_import_pytorch() -> None:
    code = "import sys, fairway.runtime.run_log; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_file_keeps_every_number_as_json_lines(tmp_path: Path) -> None:
    path, now = tmp_path / "run" / "train.log", [0.0]
    with RunLog(path, quiet=True, now=lambda: now[0]) as log:
        log.write("recipe", name="demo", folder=tmp_path)
        run_stage(log, now, total=3, seconds_each=0.5)
    lines = lines_of(path)
    assert [line["event"] for line in lines] == ["recipe", "begin"] + ["update"] * 3 + ["end"]
    assert [line["loss"] for line in lines[2:5]] == [1.0, 0.5, pytest.approx(1 / 3)]
    assert [line["seconds"] for line in lines] == [0.0, 0.0, 0.5, 1.0, 1.5, 1.5]
    assert lines[0]["folder"] == str(tmp_path)
    assert lines[-1]["spent"] == 1.5


def test_a_second_run_adds_to_the_file(tmp_path: Path) -> None:
    for _ in range(2):
        with RunLog(tmp_path / "log", quiet=True) as log:
            log.say("hello")
    assert [line["text"] for line in lines_of(tmp_path / "log")] == ["hello", "hello"]


def test_numbers_that_json_lacks_are_written_as_their_names(tmp_path: Path) -> None:
    with RunLog(tmp_path / "log", quiet=True) as log:
        log.write("bad", values=[float("nan"), {"x": float("inf")}])
    assert lines_of(tmp_path / "log")[0]["values"] == ["nan", {"x": "inf"}]


def test_bare_progress_is_shown_and_not_kept(tmp_path: Path) -> None:
    with RunLog(tmp_path / "log", quiet=True) as log, log.stage("score", total=10) as stage:
        stage.update(5)
    assert [line["event"] for line in lines_of(tmp_path / "log")] == ["begin", "end"]


@pytest.mark.parametrize(
    ("total", "seconds_each", "num_lines"),
    [
        (100, 0.01, 1),  # one second: only the closing line
        (100, 0.5, 11),  # fifty seconds: one line every tenth
        (6000, 0.1, 21),  # ten minutes: a tenth is long, so one line every thirty seconds
    ],
)
def test_plain_progress_is_a_line_now_and_then(total, seconds_each, num_lines) -> None:
    screen, now = io.StringIO(), [0.0]
    log = RunLog(screen=screen, now=lambda: now[0])
    run_stage(log, now, total=total, seconds_each=seconds_each)
    printed = screen.getvalue().splitlines()
    assert len(printed) == pytest.approx(num_lines, abs=1)
    assert printed[-1].startswith("train: ")


def test_a_plain_line_tells_share_time_left_and_numbers() -> None:
    screen, now = io.StringIO(), [0.0]
    log = RunLog(screen=screen, now=lambda: now[0])
    with log.stage("train", total=100) as stage:
        now[0] = 20.0
        stage.update(20, loss=2.34567, step=20)
    assert screen.getvalue().splitlines() == [
        "train: 20%, 1 min 20 s left, loss 2.346, step 20",
        "train: 20.0 s, loss 2.346, step 20",
    ]


def test_a_stage_without_a_total_still_shows_life() -> None:
    screen, now = io.StringIO(), [0.0]
    log = RunLog(screen=screen, now=lambda: now[0])
    with log.stage("prepare") as stage:
        now[0] = 6.0
        stage.update(12)
    assert screen.getvalue().splitlines() == ["prepare: 12", "prepare: 6.0 s"]


@pytest.mark.parametrize("total", [10, None])
def test_a_terminal_gets_a_live_display_and_a_closing_line(total, capsys) -> None:
    screen = Terminal()
    log = RunLog(screen=screen)
    with log.stage("train", total=total) as stage:
        stage.update(5, loss=1.5)
        log.say("[loops] on")  # square brackets are no markup
        print("the answer")
    shown = screen.getvalue()
    assert "[loops] on" in shown
    assert "train: 0." in shown.rstrip().splitlines()[-1]
    assert capsys.readouterr().out == "the answer\n"  # standard output is not ours to touch


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_a_narrow_screen_keeps_bar_and_time_left(
    columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    screen = Terminal()
    log = RunLog(screen=screen)
    numbers: dict[str, Any] = {
        "bits_per_byte": 1.3,
        "train_loss": 1.2,
        "tokens_per_second": 1e4,
        "lr_scale": 0.5,
    }
    with log.stage("score and learn", total=100) as stage:
        stage.update(50, **numbers)
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", screen.getvalue())
    (*_, line) = [line for line in re.split(r"[\r\n]+", shown) if " left " in line]
    assert len(line) <= columns
    assert "━" * 4 in line
    assert re.search(r" 50% \d:\d\d:\d\d left [-\d]", line)


def test_a_quiet_log_and_standard_output_stay_empty(capsys) -> None:
    log, now = RunLog(quiet=True), [0.0]
    log.say("nothing")
    run_stage(log, now, total=3, seconds_each=10.0)
    loud = RunLog()
    loud.say("something")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "something\n")


def test_an_interrupted_stage_leaves_the_screen_in_order() -> None:
    screen = Terminal()
    log = RunLog(screen=screen)
    with pytest.raises(KeyboardInterrupt), log.stage("train", total=2):
        raise KeyboardInterrupt
    log.say("after")
    assert screen.getvalue().endswith("after\n")
