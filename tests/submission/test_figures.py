"""Whether figures are those of one another."""

import math
from dataclasses import replace

import pytest

from fairway.proof.certificate import CODER_BITS, SettledFacts
from fairway.result import ProofResult, ScoreResult
from fairway.submission.figures import _adds_up

FACTS = SettledFacts(
    margin=1e-11, state_margin=1e-13, state_bits=14, deviation=None, state_deviation=None, ties=3,
    tie_bytes=12,
)  # fmt: skip
CODE_BYTES, TEXT_BYTES = 5_000, 20_000
PROOF = ProofResult(
    tokens=9_000,
    coded_bytes=CODE_BYTES,
    coded_bits_per_byte=2.0,
    claimed_bits_per_byte=2.0,
    decoded_equal=True,
    settled=FACTS,
    holds=True,
)


def coded(more_bits: float) -> ScoreResult:
    """A code so many bits longer than its nats ask for."""
    nats = (8 * CODE_BYTES - more_bits) * math.log(2)
    score = ScoreResult(bits_per_byte=0.0, nats=nats, tokens=9_000, bytes=TEXT_BYTES)
    return score.coded(CODE_BYTES)


@pytest.mark.parametrize(
    ("more_bits", "proof", "fits"),
    [
        (CODER_BITS + 8 * FACTS.tie_bytes, PROOF, True),
        (CODER_BITS + 8 * FACTS.tie_bytes + 1, PROOF, False),
        (8 * FACTS.tie_bytes - CODER_BITS - 1, PROOF, False),
        (CODER_BITS + 1, None, True),  # whatever more there is may be ties
        (-CODER_BITS - 1, None, False),  # no code is shorter than its nats
    ],
)
def test_a_code_is_as_long_as_its_nats_and_ties_ask(
    more_bits: float, proof: ProofResult | None, fits: bool
) -> None:
    assert _adds_up(coded(more_bits), proof) is fits
    assert not _adds_up(replace(coded(more_bits), bits_per_byte=1.99), proof)
