import json
import lzma
from functools import cache

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fairway.tokens.byte_count import byte_table
from fairway.tokens.tokenizer import (
    MAGIC,
    ByteTokenizer,
    Tokenizer,
    load_tokenizer,
    schema,
    train_bpe,
)

TEXT = [
    b"the cat sat on the mat\n\n    and the dog\tbarked, 1984 times\n" * 40,
    b"caf\xc3\xa9 " * 50,
]


@cache
def trained() -> Tokenizer:
    return train_bpe(TEXT, 300, num_threads=1)


@cache
def stored() -> Tokenizer:
    return load_tokenizer(trained().to_bytes())


@pytest.mark.parametrize("make", [trained, ByteTokenizer])
@given(document=st.one_of(st.binary(max_size=200), st.text(max_size=100).map(str.encode)))
@example(document="\u2581 \u2581\u2581x \U0001f600\r\n\t  ".encode())
@example(document=b"\xff\xfe\xed\xa0\x80\xc3")
@example(document=b"<s></s><unk><pad><0x0A>\0\0")
@example(document="\ufeff\u00a0\u3000".encode())
def test_any_bytes_come_back(make, document: bytes) -> None:
    tokenizer = make()
    assert tokenizer.decode(tokenizer.encode(document)) == document


@given(document=st.text(max_size=100).map(str.encode))
def test_a_stored_tokenizer_encodes_alike(document: bytes) -> None:
    assert stored().encode(document).tolist() == trained().encode(document).tolist()


def test_a_stored_tokenizer_is_stored_alike() -> None:
    assert stored().to_bytes() == trained().to_bytes()


@pytest.mark.parametrize("make", [trained, ByteTokenizer])
@given(document=st.binary(max_size=200))
def test_the_bytes_of_the_ids_add_up_to_the_document(make, document: bytes) -> None:
    tokenizer = make()
    ids = [tokenizer.bos_id, *tokenizer.encode(document).tolist()]
    assert byte_table(tokenizer).target_bytes(np.array(ids)).sum() == len(document)


def test_learned_pieces_shorten_the_text_and_hold_newlines() -> None:
    tokenizer = trained()
    assert tokenizer.vocab_size <= 300
    assert len(tokenizer.encode(TEXT[0])) < 0.7 * len(TEXT[0])
    assert any(b"\n" in tokenizer.decode([i]) for i in range(260, tokenizer.vocab_size))


def test_a_text_too_small_says_what_it_allows() -> None:
    with pytest.raises(ValueError, match="no tokenizer of 5000 pieces"):
        train_bpe([b"abc abd"], 5000, num_threads=1)
    with pytest.raises(ValueError, match="ask for more"):
        train_bpe([b"abc"], 200)


def test_a_foreign_file_is_no_tokenizer() -> None:
    with pytest.raises(ValueError, match="neither our tokenizer"):
        load_tokenizer(b"something else entirely")


def published() -> bytes:
    """A SentencePiece model with byte pieces, as our own have inside."""
    return train_bpe([b"the cat sat on the mat, and the dog sat on the cat. " * 9], 280).model


@pytest.mark.parametrize(
    ("pieces", "words"),
    [
        ([f"p{i}" for i in range(70_000)], "pieces; ids are 16 bits wide"),
        (["a" * 100_000], "a piece of 100,000 characters"),
        (["ab", "ab"], "neither our tokenizer nor"),
        ([""], "neither our tokenizer nor"),
    ],
    ids=["many", "long", "twice", "empty"],
)
def test_a_published_tokenizer_that_asks_too_much_is_refused(pieces: list[str], words: str) -> None:
    model = schema.ModelProto.FromString(published())
    for piece in pieces:
        model.pieces.add(piece=piece, score=0.0)
    with pytest.raises(ValueError, match=words) as refused:
        load_tokenizer(model.SerializeToString())
    assert str(refused.value).isprintable()


def test_an_odd_byte_piece_is_refused_in_one_printable_line() -> None:
    model = schema.ModelProto.FromString(published())
    next(p for p in model.pieces if p.type == p.BYTE).piece = "<0\x0701F\n>"
    with pytest.raises(ValueError, match="neither our tokenizer nor") as refused:
        load_tokenizer(model.SerializeToString())
    assert str(refused.value).isprintable()


@pytest.mark.parametrize(
    "pieces", [["a" * 5000], [f"a{i}" for i in range(70_000)], ["a", 5], {"a": 1}, ["a", ""]]
)
def test_our_own_pieces_have_limits_too(pieces: object) -> None:
    data = MAGIC + b"bpe" + lzma.compress(json.dumps(pieces).encode())
    with pytest.raises(ValueError, match="this tokenizer is damaged"):
        load_tokenizer(data)
    with pytest.raises(ValueError, match="this tokenizer is damaged"):
        load_tokenizer(MAGIC + b"bpe" + lzma.compress(b"[" * 100_000))
    with pytest.raises(ValueError, match="it may have"):
        load_tokenizer(bytes(1 << 24))


def test_pieces_without_a_blank_still_give_every_byte_back() -> None:
    tokenizer = train_bpe([b"thecatsatonthemat" * 40], 270)
    assert tokenizer.decode(tokenizer.encode(b"the cat  sat").tolist()) == b"the cat  sat"
