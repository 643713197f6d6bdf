"""An excerpt holds every byte of what it shows once, at its price, and survives its file."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairway.report.excerpt import KINDS, PASSAGE, make_excerpt, read_excerpt, write_excerpt
from fairway.tokens.tokenizer import ByteTokenizer
from fairway.tokens.val_text import ValText

from .run_results import full_result

TOKENIZER = ByteTokenizer()


def scored(documents: list[bytes], seed: int = 0) -> tuple[ValText, np.ndarray, np.ndarray]:
    text = ValText.of_documents(documents, TOKENIZER)
    random = np.random.default_rng(seed)
    frozen = random.exponential(2.0, text.num_targets)
    return text, frozen, frozen * random.uniform(0.5, 1.1, text.num_targets)


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=6))
@settings(max_examples=50, deadline=None)
def test_a_short_text_is_shown_whole(documents: list[bytes]) -> None:
    text, frozen, nats = scored(documents)
    found = make_excerpt(text, TOKENIZER, frozen, nats)
    assert [p.data for p in found.pieces] == [document for document in documents if document]
    assert found.is_whole
    assert found.num_documents == len(documents)
    inside = text.target_bytes.numpy() > 0
    bits = np.concatenate([np.zeros(0), *(piece.bits for piece in found.pieces)])
    assert np.allclose(bits, nats[inside] / np.log(2))


def test_a_long_text_is_shown_where_it_begins_and_where_it_is_dear() -> None:
    text, frozen, nats = scored([bytes([65 + i % 26]) * 2000 for i in range(40)])
    dear = 30 * 2001 + 500  # in the document of number 30
    nats[dear : dear + 2 * PASSAGE] = 12.0
    found = make_excerpt(text, TOKENIZER, frozen, nats, most_tokens=50_000)
    assert not found.is_whole
    assert found.pieces[0].document == 0
    assert sum(len(piece.bits) for piece in found.pieces) <= 50_000
    first = found.passages[0]
    assert first.kind == KINDS[0]
    assert found.pieces[first.piece].document == 30
    price = found.pieces[first.piece].bits[first.first : first.stop]
    assert np.allclose(price, 12.0 / np.log(2))


def test_a_smaller_part_keeps_the_passages() -> None:
    text, frozen, nats = scored([bytes([65 + i % 26]) * 2000 for i in range(40)])
    found = make_excerpt(text, TOKENIZER, frozen, nats)
    small = found.cut(1000)
    assert len(small.pieces) < len(found.pieces)
    for before, after in zip(found.passages, small.passages, strict=True):
        assert found.pieces[before.piece] is small.pieces[after.piece]


def test_a_token_without_bytes_is_paid_with_the_next() -> None:
    text, frozen, nats = scored([b"abc"])
    nats[:] = np.log(2)
    text = replace(text, target_bytes=text.target_bytes.clone())
    shown = make_excerpt(text, _Silent(), frozen, nats).pieces[0]
    assert shown.data == b"ac"
    assert shown.bits.tolist() == [1.0, 2.0]


class _Silent(ByteTokenizer):
    """Says nothing of the letter b, as an operator of CaseOps would."""

    def decode(self, tokens: object) -> bytes:
        return super().decode(tokens).replace(b"b", b"")  # type: ignore[arg-type]


def test_a_file_returns_what_was_written(tmp_path: Path) -> None:
    text, frozen, nats = scored([b"hello, hello", b"", b"again" * 100])
    excerpt, result = make_excerpt(text, TOKENIZER, frozen, nats), full_result()
    write_excerpt(tmp_path / "e.safetensors", excerpt, result)
    again = read_excerpt(tmp_path / "e.safetensors", result)
    assert again.passages == excerpt.passages
    for one, other in zip(excerpt.pieces, again.pieces, strict=True):
        assert one.data == other.data
        assert (one.token_bytes == other.token_bytes).all()
        assert np.allclose(one.bits, other.bits)
        assert np.allclose(one.frozen, other.frozen)
    with pytest.raises(ValueError, match="another run"):
        read_excerpt(tmp_path / "e.safetensors", full_result(1.4))
