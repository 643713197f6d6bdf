"""Words to calls, on commands made for it: what is asked for once, twice, before and after."""

import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pytest
from tyro.conf import DisallowNone, arg

from fairway.cli import COMMANDS
from fairway.cli.answer import Answer
from fairway.cli.parsing import BadWords, ask, completion_script
from fairway.cli.signatures import Seldom, SettledBy, command_name
from fairway.cli.words import Count, InFiles, MaybeFile, Model, Settings
from fairway.pipeline.options import RunOptions


@dataclass(frozen=True)
class Deep:
    stride: int = 8


@dataclass(frozen=True)
class Fields:
    depth: int
    deep: Deep = Deep()


def depth_of(asked: Mapping[str, Any], further: Sequence[str]) -> Fields:
    return Fields(depth=len(asked["model"] or "") + len(asked["set"]))


def dig(
    model: Model,
    files: InFiles,
    fields: Annotated[Any, SettledBy(depth_of), arg(name="")],
    set: Settings = (),
    out: MaybeFile = None,
) -> Answer:
    """dig: MODEL FILE...

    Args:
        model: what to dig with
        files: where
        set: more
        out: what to write
    """
    return {"model": str(model), "files": list(map(str, files)), "fields": fields, "out": out}


USUAL = RunOptions()


def rest(
    times: Count = 1,
    how: Annotated[RunOptions, DisallowNone, arg(name=""), Seldom(("proof_share",))] = USUAL,
    much: Annotated[int, arg(metavar="N"), Seldom()] = 0,
) -> Answer:
    """rest

    Args:
        times: how often
        much: how much of it
    """
    return {"times": times, "how": how, "much": much}


def called(words: str) -> Answer:
    return ask((dig, rest), words.split()).call()


def test_defaults_of_further_options_follow_from_what_was_said_first() -> None:
    assert called("dig ab f")["fields"] == Fields(depth=2)
    assert called("dig ab f --set x --set y")["fields"] == Fields(depth=4)
    found = called("dig ab f g --deep.stride 3 --out o")
    assert found["fields"] == Fields(depth=2, deep=Deep(3))
    assert (found["files"], found["out"]) == (["f", "g"], Path("o"))


@pytest.mark.parametrize(
    "words",
    [
        "dig ab --deep.stride 3 f g",
        "dig --out o ab --deep.stride=3 f g",
        "dig ab f g --deep.stride 3",
        "--plugin p:q dig ab f g --deep.stride 3 --plugin r:s --json",
    ],
)
def test_options_stand_before_between_and_after(words: str) -> None:
    found = called(words)
    assert (found["model"], found["files"]) == ("ab", ["f", "g"])
    assert found["fields"] == Fields(depth=2, deep=Deep(3))


def test_what_every_command_takes_is_taken_anywhere() -> None:
    words = "--plugin p:q dig --json ab f --depth 3 --plugin r:s"
    asked = ask((dig, rest), words.split())
    assert (asked.name, asked.json, asked.plugins) == ("dig", True, ("p:q", "r:s"))
    assert asked.further == ["--depth", "3"]
    assert not ask((dig, rest), ["rest"]).json


def test_an_option_before_the_name_it_depends_on_is_refused() -> None:
    with pytest.raises(ValueError, match="MODEL comes before"):
        called("dig --depth 3 ab f")


@pytest.mark.parametrize(
    ("words", "said"),
    [("dig", "MODEL"), ("dig ab f --dept 3", "--depth"), ("rest --times x", "times"), ("", "")],
)
def test_what_cannot_be_used_is_said(words: str, said: str) -> None:
    if not words:
        with pytest.raises(SystemExit):  # the list of commands
            called(words)
        return
    with pytest.raises(BadWords, match=said):
        called(words)


@pytest.mark.parametrize(
    ("words", "resume"),
    [("", "no"), ("--resume", "yes"), ("--resume auto", "auto"), ("--resume --times 2", "yes")],
)
def test_resume_alone_is_yes(words: str, resume: str) -> None:
    assert called(f"rest {words}")["how"].resume == resume


def test_every_option_is_shown_only_where_it_is_asked_for(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        ask((dig, rest), ["dig", "--help"])
    short = capsys.readouterr().out
    with pytest.raises(SystemExit):
        ask((dig, rest), ["dig", "--help-all"]).call()
    long = capsys.readouterr().out
    assert "--deep.stride" in long
    assert "--deep.stride" not in short
    assert "MODEL" in short
    assert "MODEL" in long


def test_what_is_seldom_asked_for_is_hidden_and_works(capsys: pytest.CaptureFixture) -> None:
    """A parameter, or single fields of its settings."""
    for words in ("--help", "--help-all"):
        with pytest.raises(SystemExit):
            ask((dig, rest), ["rest", words]).call()
        shown = capsys.readouterr().out
        assert "--proof-tokens" in shown
        assert ("--proof-share" in shown, "--much" in shown) == (words == "--help-all",) * 2
    found = called("rest --proof-share 0.5 --much 3")
    assert (found["how"], found["much"]) == (RunOptions(proof_share=0.5), 3)


@pytest.mark.parametrize("command", COMMANDS, ids=command_name)
def test_every_option_of_every_command_has_a_help_text(
    command: Any, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")  # one column of boxes
    with pytest.raises(SystemExit):
        ask(COMMANDS, [command_name(command), "--help-all"]).call()
    lines = [line.strip("│─ ") for line in capsys.readouterr().out.splitlines()]
    options = re.findall(r"(?:^|\n)(--[a-z].*)((?:\n(?!-).+)*)", "\n".join(lines))
    assert len(options) > 1
    for first, more in options:
        name, _, text = f"{first}{more}".replace("\n", "  ").partition("  ")
        help_text = re.sub(r"\((default: .*|required|repeatable)\)", "", text)
        assert len(help_text.strip()) > 5, name


def test_short_help_is_short(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")  # no line begins with an option that a text names
    for command in COMMANDS:
        with pytest.raises(SystemExit):
            ask(COMMANDS, [command_name(command), "--help"])
        shown = capsys.readouterr().out
        assert len(re.findall(r"^[│|\s]*--?[a-z]", shown, re.MULTILINE)) <= 16


COMPLETE = """
source {script}
COMP_WORDS=({words}) COMP_CWORD={number} COMP_LINE="{words}" COMP_POINT={point}
$(complete -p fairway | sed -E 's/.*-F ([^ ]+).*/\\1/') fairway "{last}" ""
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("fairway sc", "score"),
        ("fairway recipes --di", "--diff"),
        ("fairway prepare --val-f", "--val-fraction"),
    ],
)
@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_commands_and_options(words: str, found: str, tmp_path: Path) -> None:
    script = tmp_path / "fairway.bash"
    script.write_text(completion_script(COMMANDS, "bash"))
    last = words.split()[-1]
    asked = COMPLETE.format(
        script=script, words=words, number=len(words.split()) - 1, point=len(words), last=last
    )
    done = subprocess.run(["bash", "-c", asked], capture_output=True, text=True, check=False)
    assert found in done.stdout, done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_has_a_script(shell: str) -> None:
    script = completion_script(COMMANDS, shell)
    assert "fairway" in script
    assert "val-fraction" in script
