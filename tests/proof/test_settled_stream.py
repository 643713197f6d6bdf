"""Proofs in settled arithmetic decode with any batch and any threads, whatever learns."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fairway.evaluate.config import EvaluateConfig
from fairway.evaluate.learners.documents import DocumentAdapters
from fairway.evaluate.learners.mixture import Mixture
from fairway.evaluate.learners.phased import Phased
from fairway.evaluate.learners.sgd import Sgd
from fairway.evaluate.ledger import Ledger
from fairway.model.adapters import AdapterConfig
from fairway.proof.prove import prove
from fairway.proof.reproducible import NotReproducible
from fairway.proof.verify import verify

from .conftest import DOCUMENTS, FROZEN, corpus, loaded

STREAM = replace(FROZEN, arithmetic="settled")
APART = replace(STREAM, documents=True, rows=2)
SGD = Sgd(chunk_tokens=16, epochs=2, lr=0.05, batch_sequences=2)
ADAPTERS = DocumentAdapters(adapters=AdapterConfig(rank=2), lr=0.01)
WAYS = {
    "frozen": STREAM,
    "sgd": replace(STREAM, ttt=SGD),
    "adamw": replace(STREAM, ttt=replace(SGD, optimizer="adamw", lr=0.01)),
    "muon": replace(STREAM, ttt=replace(SGD, optimizer="muon")),
    "mixture": replace(STREAM, mixture=Mixture()),
    "sgd and mixture": replace(STREAM, ttt=SGD, mixture=Mixture()),
    "adapters": replace(APART, ttt=ADAPTERS),
    "adapters and mixture": replace(APART, ttt=ADAPTERS, mixture=Mixture()),
    "phased": replace(APART, ttt=Phased(pauses=(1, 2), adapters=ADAPTERS, sgd=SGD)),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_decodes_with_other_rows_and_is_as_long_as_claimed(
    way: str, tmp_path: Path
) -> None:
    config: EvaluateConfig = WAYS[way]
    model, path = loaded(config), tmp_path / "proof.fwp"
    certificate = prove(model, corpus(DOCUMENTS), out=path, guard=False)
    assert certificate.holds, certificate.verdict
    assert certificate.settled is not None
    assert certificate.gap == 0
    bits = 8 * (certificate.coded_bytes - certificate.settled.tie_bytes)
    spare = bits - certificate.read_bits_per_byte * certificate.num_bytes
    assert -1e-6 < spare < 16  # the coder's end; nothing else is rounded
    assert verify(path, model, rows=1).documents == tuple(DOCUMENTS)


def shaken(monkeypatch: pytest.MonkeyPatch, margins: float) -> None:
    """Every logit that a decoder rounds is off by up to so many margins."""
    plain, generator = Ledger.ends, torch.Generator().manual_seed(2)

    def ends(self: Ledger, logits: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        off = 2 * torch.rand(logits.shape, generator=generator, dtype=torch.float64) - 1
        return plain(self, logits + off * margins * self.margins.logit, positions)

    monkeypatch.setattr(Ledger, "ends", ends)


def test_noise_of_half_a_margin_decodes_and_too_much_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, path = loaded(WAYS["sgd and mixture"]), tmp_path / "proof.fwp"
    prove(model, corpus(DOCUMENTS), out=path, guard=False)
    with monkeypatch.context() as patch:
        shaken(patch, 0.5)
        assert verify(path, model).documents == tuple(DOCUMENTS)
    shaken(monkeypatch, 1e9)  # a hundredth of a nat
    with pytest.raises(NotReproducible):
        verify(path, model)


def test_native_proofs_take_no_other_threads(proof) -> None:
    path, model = proof
    with pytest.raises(ValueError, match="native arithmetic"):
        verify(path, model, threads=2)


@pytest.mark.parametrize("way", ["sgd and mixture", "adapters"])
def test_a_whole_text_is_coded_where_time_allows_a_part_to_be_decoded(
    way: str, tmp_path: Path
) -> None:
    model, path = loaded(WAYS[way]), tmp_path / "proof.fwp"
    text = corpus([document * 40 for document in DOCUMENTS])
    certificate = prove(model, text, out=path, guard=False, decode_seconds=0.0)
    assert certificate.holds, certificate.verdict
    assert certificate.decoded_tokens is not None
    assert 1024 <= certificate.decoded_tokens < 1024 + STREAM.stride < certificate.num_tokens
    assert certificate.decoded_bytes == certificate.text_bytes < certificate.num_bytes
    part = verify(path, model, seconds=0.0)
    assert (part.whole, part.coded_bits_per_byte) == (False, None)
    assert part.num_tokens == certificate.decoded_tokens
    known = part.tokens >= 0
    assert torch.equal(part.tokens[known], text.tokens[known])
