"""A certificate says yes only where the code is as long as claimed and decodes to the text."""

import json
from dataclasses import replace

import pytest

from fairway.proof.certificate import Certificate

GOOD = Certificate(
    artifact_sha256="a" * 64,
    text_sha256="b" * 64,
    bitstream_sha256="c" * 64,
    num_tokens=4000,
    num_bytes=16_000,
    text_bytes=16_003,
    coded_bytes=2_404,
    side_bytes=300,
    coded_bits_per_byte=1.202,
    claimed_bits_per_byte=1.2,
    read_bits_per_byte=1.2001,
    decoded_equal=True,
    encode_seconds=1.0,
    decode_seconds=1.1,
    threads=1,
    circumstances={"torch": "2.9"},
)


def test_it_comes_back_from_json() -> None:
    assert Certificate.from_json(GOOD.to_json()) == GOOD
    assert json.loads(GOOD.to_json())["holds"] is True


def test_the_allowance_is_a_thousandth_of_a_bit_per_byte_and_64_bits() -> None:
    assert GOOD.allowed_gap == pytest.approx(0.001 + 64 / 16_000)
    assert GOOD.holds
    assert "byte for byte" in GOOD.verdict
    for coded in (1.2 + 0.0051, 1.2 - 0.0051):  # a code too short is as suspect as one too long
        far = replace(GOOD, coded_bits_per_byte=coded)
        assert not far.holds
        assert "NO: 1." in far.verdict
        assert "0.00510 apart and 0.00500 allowed" in far.verdict


def test_another_text_is_a_no_however_short_the_code() -> None:
    other = replace(GOOD, decoded_equal=False)
    assert not other.holds
    assert "another text" in other.verdict


def test_more_bytes_than_the_text_has_are_a_no() -> None:
    inflated = replace(GOOD, num_bytes=16_004)
    assert not inflated.holds
    assert "divides by 16,004 bytes and the decoded text has 16,003" in inflated.verdict


def test_what_is_no_certificate_is_named() -> None:
    with pytest.raises(ValueError, match="Certificate lacks 'artifact_sha256'"):
        Certificate.from_json("{}")
    with pytest.raises(ValueError, match="not a certificate"):
        Certificate.from_json("[1]")
