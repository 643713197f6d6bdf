"""A file is what was packed, or it is refused with the reason."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.proof.file_format import Refused, pack, unpack

MAGIC = b"FWYTEST1"
names = st.text(max_size=5)


@given(
    st.dictionaries(names.filter(lambda n: n != "sections"), st.integers() | st.text()),
    st.dictionaries(names, st.binary(max_size=40), max_size=4),
)
def test_what_was_packed_comes_back(header: dict, sections: dict) -> None:
    data = pack(MAGIC, header, sections)
    assert unpack(MAGIC, data, "a test") == (header, sections)
    assert pack(MAGIC, header, sections) == data


EXAMPLE = pack(MAGIC, {"tokens": 12}, {"symbols": b"bits", "empty": b""})


def test_every_flipped_byte_is_refused() -> None:
    for place in range(len(EXAMPLE)):
        for flip in (1, 0x80):
            data = bytearray(EXAMPLE)
            data[place] ^= flip
            with pytest.raises(Refused):
                unpack(MAGIC, bytes(data), "a test")


def test_every_truncation_is_refused() -> None:
    for length in range(len(EXAMPLE)):
        with pytest.raises(Refused):
            unpack(MAGIC, EXAMPLE[:length], "a test")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"PNG stuff", r"not a test: it begins with b'PNG stuf'.*b'FWYTEST1'"),
        (EXAMPLE[:-5], rf"cut off: {len(EXAMPLE) - 5} of {len(EXAMPLE)} bytes"),
        (EXAMPLE[:10], r"cut off: 10 bytes"),
        (EXAMPLE + b"!", r"damaged: its checksum"),
        (EXAMPLE[:-1] + b"!", r"damaged: its checksum"),
    ],
)
def test_the_refusal_says_why(data: bytes, words: str) -> None:
    with pytest.raises(Refused, match=words):
        unpack(MAGIC, data, "a test")
