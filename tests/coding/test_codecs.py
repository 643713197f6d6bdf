"""General codecs and the byte shuffle."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairway.coding.codecs import CODECS, codec, shuffle, smallest, unshuffle

MOST = 1 << 28


@pytest.mark.parametrize("name", sorted(CODECS))
@settings(max_examples=20, deadline=None)
@given(data=st.binary(max_size=300))
def test_every_codec_returns_what_it_was_given(name: str, data: bytes) -> None:
    assert codec(name).decompress(codec(name).compress(data), len(data)) == data


@given(data=st.binary(max_size=300), stride=st.integers(1, 255))
def test_unshuffling_returns_what_was_shuffled(data: bytes, stride: int) -> None:
    assert unshuffle(shuffle(data, stride)) == data


def test_a_published_container_is_read(shared) -> None:
    """#1394 and #1413: byte shuffle, then brotli, over a zip archive."""
    packed = (shared / "vectors" / "pr1413.int6.ptz").read_bytes()
    assert unshuffle(codec("brotli").decompress(packed, MOST))[:2] == b"PK"
    packed = (shared / "vectors" / "pr414.int6.ptz").read_bytes()
    assert codec("zstd").decompress(packed, MOST)[:2] == b"PK"


def test_the_smallest_output_wins_and_says_by_whom() -> None:
    name, packed = smallest(bytes(1000))
    assert name != "stored"
    assert codec(name).decompress(packed, 1000) == bytes(1000)
    assert smallest(b"\x07") == ("stored", b"\x07")


def test_an_unknown_codec_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"unknown codec 'zip'; choose one of brotli, lzma"):
        codec("zip")


@pytest.mark.parametrize("name", sorted(CODECS.keys() - {"stored"}))
def test_foreign_data_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="cannot be decompressed"):
        codec(name).decompress(b"this was never compressed", MOST)
    with pytest.raises(ValueError, match="not byte-shuffled"):
        unshuffle(b"BSHF")


@pytest.mark.parametrize("name", sorted(CODECS))
def test_no_more_memory_is_taken_than_was_allowed(name: str) -> None:
    bomb = codec(name).compress(bytes(50_000_000))
    with pytest.raises(ValueError, match="more than the 1,000 they may"):
        codec(name).decompress(bomb, 1000)


@pytest.mark.parametrize("name", sorted(CODECS.keys() - {"stored"}))
def test_what_is_cut_off_is_refused(name: str) -> None:
    whole = bytes(range(256)) * 40
    packed = codec(name).compress(whole)
    for length in range(len(packed)):
        with pytest.raises(ValueError, match="cannot be decompressed"):
            codec(name).decompress(packed[:length], MOST)
