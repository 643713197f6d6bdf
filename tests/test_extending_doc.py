"""The parts and the commands in docs/extending.md, run as they are printed there."""

import json
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fairway.artifact.container import unpack
from fairway.cli import main
from fairway.prepare import prepare_documents
from fairway.runtime import plugins

PAGE = (Path(__file__).parents[1] / "docs" / "extending.md").read_text()
FILES = dict(re.findall(r"In\s`(\w+\.py)`:\n\n```python\n(.*?)```", PAGE, re.DOTALL))
COMMANDS = re.findall(r"^\$ fairway (.*)$", PAGE, re.MULTILINE)
VERSES = [f"{i} green bottles hanging on the wall, {i * 7} more. ".encode() * 6 for i in range(40)]
QUICKLY = ["--audit-seconds", "0", "--proof-tokens", "20"]

Fairway = Callable[[str], tuple[int, str]]  # status, standard error


def command(start: str) -> str:
    """The one command of the page that begins so."""
    (found,) = [line for line in COMMANDS if line.startswith(start)]
    return found


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The user's folder: the page's files, and data under the name that the page gives it."""
    folder = tmp_path_factory.mktemp("extending")
    data = folder / "data" / "mine"
    prepare_documents(data, VERSES[:-1], VERSES[-1:], vocab_size=300, source="a song")
    for name, code in FILES.items():
        (folder / name).write_text(code)
    return folder


@pytest.fixture
def fairway(
    work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> Iterator[Fairway]:
    """A command as if in a process of its own: what one loads, the next has to be told again."""
    monkeypatch.chdir(work)
    monkeypatch.setattr(sys, "path", [*sys.path])

    def forget() -> None:
        monkeypatch.setattr(plugins, "_loaded", {})
        monkeypatch.setattr(plugins, "_given", {})
        for name in FILES:
            sys.modules.pop(name.removesuffix(".py"), None)

    def call(line: str) -> tuple[int, str]:
        forget()
        status = main(shlex.split(line))
        return status, capsys.readouterr().err

    yield call
    forget()


def test_the_page_shows_each_kind_of_part() -> None:
    assert list(FILES) == [
        "my_learner.py", "my_rounding.py", "my_optimizer.py", "my_recipe.py", "my_probes.py",
    ]  # fmt: skip
    assert len(COMMANDS) == 5


def test_a_run_of_all_parts_is_recorded_and_its_model_asks_for_the_learner(
    work: Path, fairway: Fairway
) -> None:
    status, said = fairway(shlex.join([*shlex.split(command("run my_recipe.py:mine")), *QUICKLY]))
    assert status == 0, said
    recorded = json.loads((work / "runs/mine/result.json").read_text())["plugins"]
    names = ["my_learner:PlainSteps", "my_optimizer:LionConfig", "my_rounding:MeanRows"]
    assert [plugin["name"] for plugin in recorded] == names
    assert all(len(plugin["sha256"]) == 64 for plugin in recorded)
    header = unpack((work / "runs/mine/model.fwy").read_bytes()).config["plugins"]
    assert [plugin["name"] for plugin in header] == [names[0], names[2]]

    status, said = fairway(command("score runs/mine"))
    assert status == 2
    assert "needs the plug-in" in said
    assert said.strip() in PAGE
    assert not {name.removesuffix(".py") for name in FILES} & set(sys.modules)

    status, said = fairway("generate runs/mine/model.fwy --num-tokens 3")
    assert status == 0, said
    status, said = fairway(f"{command('audit runs/mine')} --seconds 1")
    assert status == 0, said
    assert "free_repeats" in said


def test_the_learner_is_set_by_its_full_name(fairway: Fairway) -> None:
    _, setting = command("run pocket").split(" --set ")
    small = "run my_recipe.py:mine data/mine --out runs/learner --audit-seconds 0 --proof-tokens 0"
    status, said = fairway(f"{small} --set {setting}")
    assert status == 0, said
    assert json.loads(Path("runs/learner/result.json").read_text())["plugins"][0]["name"] == (
        "my_learner:PlainSteps"
    )


def test_the_recipe_is_compared_like_any_other(fairway: Fairway) -> None:
    assert fairway(command("recipes my_recipe.py:mine")) == (0, "")
