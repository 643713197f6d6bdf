"""A file is what was packed, or it is refused with the reason."""

import hashlib
import zlib

import brotli
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.artifact.sections import (
    Refused,
    Section,
    best_packed,
    pack_frame,
    to_json,
    unpack_frame,
)

MAGIC = b"FWYT"
names = st.text(max_size=5)


@given(
    st.dictionaries(names.filter(lambda n: n != "sections"), st.integers() | st.text()),
    st.dictionaries(names, st.binary(max_size=40), max_size=4),
)
def test_what_was_packed_comes_back(header: dict, contents: dict) -> None:
    sections = [best_packed(name, content) for name, content in contents.items()]
    data = pack_frame(MAGIC, header, sections)
    frame = unpack_frame(MAGIC, data, "a test")
    assert frame.header == header
    assert {name: frame.read(name, 40) for name in frame.sections} == contents
    assert sum(frame.sizes.values()) == len(data)
    assert pack_frame(MAGIC, header, sections) == data


EXAMPLE = pack_frame(
    MAGIC, {"tokens": 12}, [Section("symbols", "stored", b"bits"), Section("empty", "stored", b"")]
)


def test_every_flipped_byte_is_refused() -> None:
    for place in range(len(EXAMPLE)):
        for flip in (1, 0x80):
            data = bytearray(EXAMPLE)
            data[place] ^= flip
            with pytest.raises(Refused):
                unpack_frame(MAGIC, bytes(data), "a test")


def test_every_truncation_is_refused() -> None:
    for length in range(len(EXAMPLE)):
        with pytest.raises(Refused):
            unpack_frame(MAGIC, EXAMPLE[:length], "a test")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"PNG stuff", r"not a test: it begins with b'PNG ' instead of b'FWYT'"),
        (EXAMPLE[:10], r"cut off after 10 bytes"),
        (EXAMPLE[:-3], r"section 'symbols' is cut off: 1 of 4 bytes"),
        (EXAMPLE + b"!", r"1 bytes too many"),
        (EXAMPLE[:-1] + b"!", r"checksum is wrong"),
    ],
    ids=["foreign", "short", "section", "long", "digest"],
)
def test_the_refusal_says_why(data: bytes, words: str) -> None:
    with pytest.raises(Refused, match=words):
        unpack_frame(MAGIC, data, "a test")


def with_header(header: bytes) -> bytes:
    """A file whose checksums are right and whose header is anything."""
    head = brotli.compress(header)
    file = MAGIC + len(head).to_bytes(4, "little") + zlib.crc32(head).to_bytes(4, "little") + head
    return file + hashlib.sha256(file).digest()


@pytest.mark.parametrize(
    "header",
    [
        b"not JSON",
        b"[" * 100_000,
        b"[]",
        b"{}",
        b'{"sections": 5}',
        b'{"sections": [5]}',
        b'{"sections": [["a", "stored", -1, 0]]}',
        b'{"sections": [["a", "stored", 0, 0], ["a", "stored", 0, 0]]}',
        b'{"sections": [["a", "stored", 1.5, 0]]}',
        b"\xff\xfe",
        bytes(200_000_000),
    ],
    ids=lambda header: repr(header[:30]),
)
def test_a_header_that_lies_is_refused(header: bytes) -> None:
    with pytest.raises(Refused, match=r"header|more than the"):
        unpack_frame(MAGIC, with_header(header), "a test")


def test_a_section_gives_no_more_than_its_reader_allows() -> None:
    bomb = pack_frame(MAGIC, {}, [best_packed("zeros", bytes(1_000_000))])
    frame = unpack_frame(MAGIC, bomb, "a test")
    assert frame.read("zeros", 1_000_000) == bytes(1_000_000)
    with pytest.raises(Refused, match="more than the 999,999 they may"):
        frame.read("zeros", 999_999)
    with pytest.raises(Refused, match="no section 'ones'"):
        frame.read("ones", 5)


def test_a_codec_nobody_knows_is_refused() -> None:
    frame = unpack_frame(MAGIC, pack_frame(MAGIC, {}, [Section("a", "rar", b"")]), "a test")
    with pytest.raises(Refused, match="unknown codec 'rar'"):
        frame.read("a", 5)


def test_the_json_has_one_form() -> None:
    assert to_json({"b": 1, "a": [1.5, None]}) == '{"a":[1.5,null],"b":1}'
