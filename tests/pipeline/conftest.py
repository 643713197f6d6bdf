from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from fairway.pipeline.story import run
from fairway.prepare import prepare_documents
from fairway.recipes.recipe import Recipe
from fairway.runtime.distributed import Ranks
from fairway.runtime.run_log import RunLog
from fairway.runtime.setup import Runtime
from fairway.tokens.shards import DataFolder

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
    return Runtime(torch.device("cpu"), torch.float32, Ranks(), RunLog(None, quiet=True))


@pytest.fixture
def go(song: DataFolder, runtime: Runtime) -> Callable[..., dict]:
    def run_it(chosen: Recipe, out: Path, resume: bool = False) -> dict:
        out.mkdir(exist_ok=True)
        return run(chosen, song, out, runtime, resume)

    return run_it
