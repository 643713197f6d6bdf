"""Any bytes come back, whole or in pieces, and every token has its share of the original ones."""

import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.tokens.byte_count import byte_table
from fairway.tokens.caseops import (
    ALLCAPS,
    CAPNEXT,
    ESCAPE,
    OPERATORS,
    TITLE,
    CaseDecoder,
    decode_case,
    encode_case,
)
from fairway.tokens.tokenizer import (
    BOS,
    CaseTokenizer,
    SentencePieceTokenizer,
    load_tokenizer,
    piece_decoder,
    train_bpe,
    train_tokenizer,
)

SONG = b" ".join(b"Ten GREEN bottles hang on iOS wall %d, Ta-Da! " % i for i in range(99))
# Words with capitals, operators whole and in parts, and bytes that are no text at all.
PARTS = st.sampled_from(
    [*OPERATORS, b"\xee", b"\x80", b"\x81", b"\x84", b"a", b"B", b"Cd", b"EF", b"gH", b" ", b"\n"]
    + [letter.encode() for letter in "\u00df\u0131\u0130\u03c2\u03a3\u01c5\u2581\u00c9\u1e9e"]
)
ANY_BYTES = st.one_of(st.binary(), st.lists(PARTS).map(b"".join), st.text().map(str.encode))


@pytest.fixture(scope="module")
def tokenizer() -> CaseTokenizer:
    made = train_tokenizer([SONG], 330, "caseops")
    assert isinstance(made, CaseTokenizer)
    return made


@pytest.mark.parametrize(
    ("text", "written"),
    [
        (b"lower case", b"lower case"),
        (b"The A-Team", TITLE + b"the " + TITLE + b"a-" + TITLE + b"team"),
        (b"USA4EU", ALLCAPS + b"usa4" + ALLCAPS + b"eu"),
        (b"iPhone", b"i" + CAPNEXT + b"phone"),
        (b"McDonald", TITLE + b"mc" + CAPNEXT + b"donald"),
        ("ÉTÉ".encode(), "É".encode() + TITLE + b"t" + "É".encode()),
        (TITLE + b"x", ESCAPE + TITLE + b"x"),
    ],
)
def test_capitals_are_written_as_the_field_writes_them(text: bytes, written: bytes) -> None:
    assert encode_case(text) == written
    assert decode_case(written) == text


@given(ANY_BYTES)
def test_any_bytes_come_back(text: bytes) -> None:
    assert decode_case(encode_case(text)) == text


def test_every_character_comes_back_alone_and_in_words() -> None:
    for begin in range(0, sys.maxunicode + 1, 4096):
        block = [chr(c) for c in range(begin, begin + 4096)]
        text = "".join(f"{c} A{c}b {c}CD e{c}F" for c in block).encode("utf-8", "surrogatepass")
        assert decode_case(encode_case(text)) == text


@given(st.lists(PARTS))
def test_in_pieces_decoding_gives_the_same(pieces: list[bytes]) -> None:
    decoder = CaseDecoder()
    found = b"".join(decoder.push(piece) for piece in pieces) + decoder.finish()
    assert found == decode_case(b"".join(pieces))


def test_a_long_word_takes_no_long_time() -> None:
    word = b"a" * 200_000 + b"\xee" * 200_000
    assert encode_case(word) == word == decode_case(word)


@given(ANY_BYTES)
def test_tokens_stand_for_all_original_bytes(tokenizer: CaseTokenizer, text: bytes) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    stream = np.concatenate([[BOS], ids])
    counts = byte_table(tokenizer).target_bytes(stream)
    assert counts.sum() == len(text)
    assert (counts >= 0).all()
    add = piece_decoder(tokenizer, [BOS])
    assert b"".join(map(add, [*ids.tolist(), None])) == text


def test_operators_count_nothing_unless_the_text_holds_them(tokenizer: CaseTokenizer) -> None:
    title, *_, escape = tokenizer.operator_ids
    table = byte_table(tokenizer)
    counts = table.target_bytes(np.array([BOS, title, escape, title, escape, escape, title]))
    assert counts.tolist() == [0, 0, 3, 0, 3, 0]


def test_a_document_ends_what_capitals_began(tokenizer: CaseTokenizer) -> None:
    ids = [*tokenizer.encode(b"END"), BOS, *tokenizer.encode(b"begin")]
    assert tokenizer.decode(ids) == b"ENDbegin"


def test_a_prompt_that_ends_in_capitals_goes_on_in_capitals(tokenizer: CaseTokenizer) -> None:
    add = piece_decoder(tokenizer, tokenizer.encode(b"GREEN BOTT").tolist())
    assert b"".join(map(add, tokenizer.inner.encode(b"les ").tolist())) == b"LES "


def test_it_is_loaded_as_what_it_is(tokenizer: CaseTokenizer) -> None:
    again = load_tokenizer(tokenizer.to_bytes())
    assert isinstance(again, CaseTokenizer)
    assert again.to_bytes() == tokenizer.to_bytes()
    assert np.array_equal(again.encode(SONG), tokenizer.encode(SONG))
    assert again.transform == "caseops"
    assert again.lossless


def test_a_published_model_with_operators_decodes_to_original_text(
    tokenizer: CaseTokenizer,
) -> None:
    published = load_tokenizer(tokenizer.inner.model)
    assert isinstance(published, CaseTokenizer)
    assert not published.lossless
    assert published.to_bytes() == tokenizer.inner.model
    assert published.decode(published.encode(SONG)) == SONG
    plain = train_bpe([SONG], 330)
    assert isinstance(load_tokenizer(plain.model), SentencePieceTokenizer)


def test_an_unknown_transform_is_refused() -> None:
    with pytest.raises(ValueError, match="no text transform 'rot13'; there is 'caseops'"):
        train_tokenizer([SONG], 330, "rot13")
