"""The text of the demo becomes a data folder, anew each time."""

from pathlib import Path

import pytest

from fairway import demo

DOCUMENTS = [f"{i} green bottles hanging on the wall, {i}. ".encode() * 8 for i in range(40)]


def test_the_built_in_text_becomes_a_data_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "builtin_documents", lambda: DOCUMENTS)
    out = tmp_path / "data"
    out.mkdir()
    (out / "stale").write_text("of another interpreter")
    data = demo.prepare_builtin(out, vocab_size=300)
    assert not (out / "stale").exists()
    assert data.tokenizer.vocab_size == 300
    assert len(data.train) > len(data.val) > 0
