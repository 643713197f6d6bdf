import pytest


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts of a hundred tokens still come in several chunks where nothing learns in between."""
    monkeypatch.setattr("fairway.evaluate.learner.CHUNK_TOKENS", 24)
