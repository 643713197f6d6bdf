"""An honest run of seconds and its script, made once."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fairway.artifact.config_json import config_from_json
from fairway.evaluate.planner import Estimate
from fairway.pipeline import story
from fairway.pipeline.code import settled_by
from fairway.pipeline.story import RunOptions, run_on
from fairway.prepare import prepare_documents
from fairway.recipes.recipe import Recipe
from fairway.recipes.registry import recipe, smoke
from fairway.runs.description import read_recipe, read_run
from fairway.runtime.native import switched_off
from fairway.runtime.run_log import RunLog
from fairway.runtime.setup import Runtime
from fairway.submission.settled import Settled
from fairway.tokens.shards import DataFolder

DOCUMENTS = [
    f"{i} green bottles hanging on the wall, {i * 7} more. ".encode() * 6 for i in range(40)
]


@pytest.fixture(scope="session")
def song(tmp_path_factory: pytest.TempPathFactory) -> DataFolder:
    out = tmp_path_factory.mktemp("text") / "data"
    prepare_documents(out, DOCUMENTS[:-3], DOCUMENTS[-3:], vocab_size=300, source="a song")
    return DataFolder(out)


Run = Callable[..., Path]


@pytest.fixture(scope="session")
def run(song: DataFolder) -> Run:
    """Makes a run; in plain forms, as scripts have them, or with all kernels there are."""

    def made(chosen: Recipe, out: Path, *, plain: bool = True, **options: object) -> Path:
        out.mkdir(parents=True, exist_ok=True)
        forms = switched_off() if plain else nullcontext()
        with pytest.MonkeyPatch.context() as patched, forms:
            patched.setattr(story, "compare", lambda data, text, runtime: {})
            patched.setattr(story, "write_page", lambda runs, out: out)
            runtime = Runtime(torch.device("cpu"), log=RunLog(quiet=True))
            how = {"proof_tokens": 0, "audit_seconds": 0, "compute_dtype": "float32", **options}
            with runtime.log:
                run_on(runtime, chosen, song, out, RunOptions(**how))  # type: ignore[arg-type]
        return out

    return made


@pytest.fixture
def settled(song: DataFolder) -> Callable[[Path], Settled]:
    def of(out: Path) -> Settled:
        held = read_run(out)
        assert held is not None
        planned = config_from_json(Estimate, held["settled"]["evaluation"])  # type: ignore[index]
        runtime = Runtime(torch.device("cpu"))
        return settled_by(read_recipe(out), planned.config, song.tokenizer, runtime)

    return of


def tiny(name: str = "pocket", seed: int = 1337) -> Recipe:
    return replace(smoke(recipe(name)), seed=seed)
