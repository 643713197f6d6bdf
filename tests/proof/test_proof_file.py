"""A proof's bytes: whole and unchanged, or refused."""

from pathlib import Path

import pytest

from fairway.artifact.loaded_model import LoadedModel
from fairway.artifact.sections import Refused
from fairway.proof.proof_file import ProofFile


def test_every_flipped_byte_is_refused(proof: tuple[Path, LoadedModel]) -> None:
    data = proof[0].read_bytes()
    for place in range(len(data)):
        damaged = bytearray(data)
        damaged[place] ^= 1 << place % 8
        with pytest.raises(Refused, match=r"damaged|cut off|not a proof"):
            ProofFile.from_bytes(bytes(damaged))
