"""The last records in miniature, over several documents: audited legal, and proved as scored."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fairway.audit.artifact import audit_artifact
from fairway.evaluate.learners.phased import Phased
from fairway.pipeline import story
from fairway.pipeline.story import RunOptions, run_on
from fairway.prepare import prepare_documents
from fairway.recipes.registry import recipe, smoke
from fairway.result import RunResult
from fairway.runtime.setup import Runtime
from fairway.tokens.shards import DataFolder

Go = Callable[..., RunResult]
VERSES = [
    (f"{i} green bottles hanging on the wall, " * (1 + i % 4) + f"{i * 7} more.").encode()
    for i in range(48)
]


@pytest.fixture(scope="module")
def songs(tmp_path_factory: pytest.TempPathFactory) -> DataFolder:
    """Nine documents to score, of four lengths."""
    out = tmp_path_factory.mktemp("songs") / "data"
    prepare_documents(out, VERSES[:-9], VERSES[-9:], vocab_size=300, source="songs")
    return DataFolder(out)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pr2014", "pr2135"])
def test_it_is_legal_in_its_order_and_proved_in_it(
    name: str,
    songs: DataFolder,
    runtime: Runtime,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(story, "compare", lambda data, text, runtime: {})
    monkeypatch.setattr(story, "write_page", lambda runs, out: out)
    small = smoke(recipe(name))
    assert isinstance(small.evaluate.ttt, Phased)
    assert small.evaluate.order == "longest_first"
    evaluate = replace(small.evaluate, rows=2, ttt=replace(small.evaluate.ttt, pauses=(2, 4)))
    small = replace(small, evaluate=evaluate)
    options = RunOptions(proof_tokens=10**6, compute_dtype="float32", audit_seconds=0)
    with runtime.log:
        result = run_on(runtime, small, songs, tmp_path, options)
    assert result.proof is not None
    assert result.proof.decoded_equal
    assert result.proof.holds
    report = audit_artifact(tmp_path / "model.fwy", songs, seconds=60.0, eval_seconds=600.0)
    assert report.verdict == "legal", report
    assert report.order["name"] == "longest first"
    if name == "pr2135":
        published = result.diagnostics["pr2135_as_published"]
        assert published.illegal_bits_per_byte != published.honest_bits_per_byte
        assert "illegal" in published.warning
