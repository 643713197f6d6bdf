"""Decoding a proof: the text, or the reason why not."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fairway.artifact.loaded_model import LoadedModel
from fairway.artifact.sections import Refused
from fairway.proof.proof_file import ProofFile
from fairway.proof.reproducible import NotReproducible, circumstances
from fairway.proof.verify import documents_of, verify
from fairway.tokens.tokenizer import ByteTokenizer

from .conftest import DOCUMENTS, FROZEN, corpus, loaded


def test_the_refusal_names_the_file_and_the_reason(
    proof: tuple[Path, LoadedModel], tmp_path: Path
) -> None:
    path, model = proof
    cut = tmp_path / "cut.fwp"
    cut.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(Refused, match=r"cut.fwp: .*is cut off"):
        verify(cut, model)
    with pytest.raises(Refused, match=r"no proof at .*none.fwp"):
        verify(tmp_path / "none.fwp", model)
    with pytest.raises(Refused, match=r"made with the model .*\.\.\., and this one"):
        verify(path, loaded(FROZEN, num_layers=1))


def test_another_machine_is_refused_at_the_first_checkpoint(
    proof: tuple[Path, LoadedModel], tmp_path: Path
) -> None:
    """Stood in for by other weights under the same hash: other floats, as elsewhere."""
    path, model = proof
    there = circumstances() | {"torch": "1.0"}
    foreign = replace(ProofFile.from_bytes(path.read_bytes()), circumstances=there)
    other = tmp_path / "foreign.fwp"
    other.write_bytes(foreign.to_bytes())
    assert verify(other, model).documents == tuple(DOCUMENTS)  # a difference alone is no reason
    rounds_otherwise = loaded(FROZEN)
    with torch.no_grad():
        rounds_otherwise.model.embed.weight.mul_(1.01)
    with pytest.raises(NotReproducible, match=r"torch 1.0 there and .* here. Nothing was written"):
        verify(other, rounds_otherwise)


def test_documents_lie_between_one_bos_and_the_next() -> None:
    tokenizer = ByteTokenizer()
    assert documents_of(corpus([b"a", b"", b"bc"]).tokens, tokenizer) == (b"a", b"", b"bc")
    assert documents_of(corpus([b"a", b""]).tokens, tokenizer) == (b"a",)
    assert documents_of(corpus([b"xa", b"b"]).tokens[2:], tokenizer) == (b"a", b"b")
