"""Recipes and learners from the user's own file, as typed: recorded, asked for, and noticed."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fairway.artifact.container import unpack
from fairway.cli import main
from fairway.prepare import prepare_documents
from fairway.runtime import plugins

Fairway = Callable[..., tuple[int, str]]  # status, standard error

VERSES = [f"{i} green bottles hanging on the wall, {i * 7} more. ".encode() * 6 for i in range(40)]
SOURCE = '''"""A recipe and a way to learn that fairway does not know."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from fairway.evaluate.frozen import Frozen
from fairway.evaluate.learner import Learner
from fairway.recipes.recipe import Recipe
from fairway.recipes.registry import recipe, smoke


def tiny() -> Recipe:
    return smoke(recipe("pocket"))


@dataclass(frozen=True, kw_only=True)
class Counter(Learner):
    """Learns nothing; counts what it could have learned from."""

    step: int = 1

    def predictor(self, model, windows, *, seed, ranks):
        return Counting(model, windows.rows, ranks, self.step)

    def chunk_targets(self) -> int:
        return 64


class Counting(Frozen):
    def __init__(self, model, rows, ranks, step: int) -> None:
        super().__init__(model, rows, ranks)
        self.step, self.count = step, torch.tensor(0)

    def learn(self, chunk) -> None:
        self.count += self.step

    def state_dict(self) -> dict[str, Tensor]:
        return {"count": self.count}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.count = state["count"].clone()
'''


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plugins")
    prepare_documents(folder / "data", VERSES[:-1], VERSES[-1:], vocab_size=300, source="a song")
    (folder / "mine.py").write_text(SOURCE)
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
        sys.modules.pop("mine", None)

    def run(*argv: str) -> tuple[int, str]:
        forget()
        status = main([*argv])
        return status, capsys.readouterr().err

    yield run
    forget()


def test_a_run_with_a_learner_of_one_s_own_is_recorded_and_asks_for_it(
    work: Path, fairway: Fairway
) -> None:
    counter = 'evaluate.ttt={"type": "mine:Counter", "step": 2}'
    options = ["--audit-seconds", "0", "--proof-tokens", "20", "--set", counter]
    status, said = fairway("run", "mine.py:tiny", "data", "--out", "run", *options)
    assert status == 0, said
    recorded = json.loads((work / "run" / "result.json").read_text())["plugins"]
    assert [plugin["name"] for plugin in recorded] == ["mine:Counter"]
    artifact = unpack((work / "run" / "model.fwy").read_bytes())
    assert artifact.config["plugins"] == recorded

    score = ["score", "run/model.fwy", "data"]
    status, said = fairway(*score)
    assert status == 2
    assert "--plugin mine:Counter" in said

    status, said = fairway(*score, "--plugin", "mine:Counter")
    assert status == 0, said
    assert "is not the one" not in said

    (work / "mine.py").write_text(f"{SOURCE}# changed\n")
    status, said = fairway("--plugin", "mine.py:Counter", *score)
    (work / "mine.py").write_text(SOURCE)
    assert status == 0, said
    assert "plug-in mine:Counter is not the one this was made with" in said


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["recipes", "--plugin", "nothing:Here"], "cannot import nothing"),
        (["recipes", "--plugin"], "Missing value for argument '--plugin'"),
        (["recipes", "mine.py:nothing"], "has no 'nothing'"),
        (["recipes", "mine.py:Counter"], "Recipe"),
    ],
)
def test_a_plug_in_that_cannot_be_had_is_named(
    argv: list[str], message: str, fairway: Fairway
) -> None:
    status, said = fairway(*argv)
    assert status == 2
    assert message in said


def test_a_recipe_of_one_s_own_is_compared_like_any_other(fairway: Fairway) -> None:
    assert fairway("recipes", "mine.py:tiny", "--diff", "pocket") == (0, "")
