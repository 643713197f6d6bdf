"""The campaigns of `benchmarks/faults`, whose parts the quick forms here are made of."""

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks" / "faults"))

from samples import model_bytes


@contextmanager
def lowered(limit: int, most: int) -> Iterator[None]:
    """A limit of this process's (`resource.RLIMIT_...`), lowered for a while."""
    before = resource.getrlimit(limit)
    resource.setrlimit(limit, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(limit, before)


@pytest.fixture(scope="session")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of a few thousand weights that learns on the way."""
    path = tmp_path_factory.mktemp("model") / "model.fwy"
    path.write_bytes(model_bytes())
    return path
