"""A text to be scored travels whole: ids, the bytes of each target, where documents start."""

from pathlib import Path

import pytest
import torch

from fairway.prepare import prepare_documents
from fairway.tokens.shards import DataFolder
from fairway.tokens.val_text import ValText

DOCUMENTS = [f"{i} green bottles hanging on the wall. ".encode() * 4 for i in range(12)]


def test_the_bytes_are_those_of_the_documents(tmp_path: Path) -> None:
    prepare_documents(
        tmp_path / "data", DOCUMENTS[:-2], DOCUMENTS[-2:], vocab_size=300, source="a song"
    )
    data = DataFolder(tmp_path / "data")
    text = ValText.of(data)
    assert len(text.document_starts) == 2
    assert int(text.target_bytes.sum()) == sum(map(len, DOCUMENTS[-2:]))
    short = ValText.of(data, 5)
    assert torch.equal(short.tokens, text.tokens[:5])
    assert torch.equal(short.target_bytes, text.target_bytes[:4])


def test_its_beginning_has_the_documents_that_begin_in_it() -> None:
    text = ValText(torch.arange(6), torch.arange(5), (0, 2, 4))
    part = text.first(3)
    assert part.tokens.tolist() == [0, 1, 2, 3]
    assert part.target_bytes.tolist() == [0, 1, 2]
    assert part.document_starts == (0, 2)
    assert part.num_targets == 3
    assert text.first(99).num_targets == 5


def test_every_target_needs_its_bytes() -> None:
    with pytest.raises(ValueError, match="3 byte counts for 3 tokens"):
        ValText(torch.arange(3), torch.ones(3), (0,))
