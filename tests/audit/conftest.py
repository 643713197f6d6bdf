"""What tests of the audit share: a clock that it reads and a test sets, so that no test waits and
none fails under load; and small vocabularies."""

from pathlib import Path

import pytest

from fairway.audit.token_pieces import Vocabulary
from fairway.audit.vocabulary import open_vocabulary

from .clock import Clock


@pytest.fixture
def clock() -> Clock:
    """Pass `clock.read` as `now` to what is audited."""
    return Clock()


@pytest.fixture(scope="session")
def vocabulary_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """By kind."""
    from .vocabularies import make_files

    return make_files(tmp_path_factory.mktemp("vocabularies"))


@pytest.fixture(scope="session")
def vocabularies(vocabulary_files: dict[str, Path]) -> dict[str, Vocabulary]:
    return {kind: open_vocabulary(file) for kind, file in vocabulary_files.items()}
