from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fairway.pipeline import story
from fairway.pipeline.folder import RunFolder
from fairway.pipeline.options import Resume
from fairway.pipeline.story import RunOptions, run_on
from fairway.prepare import prepare_documents
from fairway.recipes.recipe import Recipe
from fairway.result import RunResult
from fairway.runtime.run_log import RunLog
from fairway.runtime.setup import Runtime
from fairway.tokens.shards import DataFolder

Go = Callable[..., RunResult]

DOCUMENTS = [
    f"{i} green bottles hanging on the wall, {i * 7} more. ".encode() * 6 for i in range(40)
]


@pytest.fixture(scope="session")
def song(tmp_path_factory: pytest.TempPathFactory) -> DataFolder:
    """The last verse is the validation text."""
    out = tmp_path_factory.mktemp("text") / "data"
    prepare_documents(out, DOCUMENTS[:-1], DOCUMENTS[-1:], vocab_size=300, source="a song")
    return DataFolder(out)


@pytest.fixture
def runtime() -> Runtime:
    return Runtime(torch.device("cpu"), log=RunLog(quiet=True))


@pytest.fixture
def fold(song: DataFolder, runtime: Runtime) -> Callable[..., RunFolder]:
    """The folder of a run, begun."""

    def begun(chosen: Recipe, out: Path, resume: Resume = "no") -> RunFolder:
        out.mkdir(exist_ok=True)
        folder = RunFolder.open(out, chosen, song, runtime, resume)
        folder.begin(chosen, runtime)
        return folder

    return begun


@pytest.fixture
def go(song: DataFolder, runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> Go:
    """A run up to its score; what judges it has tests of its own, and takes longer."""
    monkeypatch.setattr(story, "compare", lambda data, text, runtime: {})
    monkeypatch.setattr(story, "write_page", lambda runs, out: out)
    monkeypatch.setattr(story, "script_of", lambda *of: b"")

    def run_it(chosen: Recipe, out: Path, proof_tokens: int = 0, **options: Any) -> RunResult:
        out.mkdir(exist_ok=True)
        options = {"compute_dtype": "float32", "audit_seconds": 0, **options}
        here = replace(runtime, log=RunLog(quiet=True))
        how = RunOptions(proof_tokens=proof_tokens, **options)
        with here.log:
            return run_on(here, chosen, song, out, how)

    return run_it
