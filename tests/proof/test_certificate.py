"""A certificate says yes only where the code is as long as claimed and decodes to the text."""

import json
from dataclasses import replace

import pytest

from fairway.proof.certificate import Certificate, SettledFacts

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


SETTLED = replace(
    GOOD,
    claimed_bits_per_byte=GOOD.coded_bits_per_byte,
    read_bits_per_byte=8 * (2_404 - 2) / 16_000,
    settled=SettledFacts(
        margin=1e-11,
        state_margin=1e-13,
        state_bits=17,
        deviation=3e-14,
        state_deviation=1e-15,
        ties=3,
        tie_bytes=2,
    ),
)


def test_settled_arithmetic_allows_no_gap_at_all() -> None:
    assert SETTLED.holds
    assert Certificate.from_json(SETTLED.to_json()) == SETTLED
    least = 8 / SETTLED.num_bytes  # a byte
    for claimed in (SETTLED.coded_bits_per_byte - least, SETTLED.coded_bits_per_byte + 1e-15):
        assert not replace(SETTLED, claimed_bits_per_byte=claimed).holds


def test_a_settled_code_that_its_distributions_do_not_explain_is_a_no() -> None:
    longer = replace(SETTLED, coded_bytes=2_404 + 9, coded_bits_per_byte=8 * 2_413 / 16_000)
    assert not replace(longer, claimed_bits_per_byte=longer.coded_bits_per_byte).holds


def test_a_part_that_was_decoded_is_counted_by_itself() -> None:
    part = replace(SETTLED, decoded_tokens=1024, decoded_bytes=4_000, text_bytes=4_000)
    assert part.holds
    assert "all 4,000 tokens are coded, and decoding the first 1,024" in part.verdict
    assert not replace(part, decoded_bytes=4_001).holds


def test_what_is_no_certificate_is_named() -> None:
    with pytest.raises(ValueError, match="Certificate lacks 'artifact_sha256'"):
        Certificate.from_json("{}")
    with pytest.raises(ValueError, match="not a certificate"):
        Certificate.from_json("[1]")
