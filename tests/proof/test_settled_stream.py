"""Proofs in settled arithmetic decode with any batch and any threads, whatever learns."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fairway.evaluate.config import EvaluateConfig
from fairway.evaluate.frozen import NoLearning
from fairway.evaluate.learners.documents import DocumentAdapters
from fairway.evaluate.learners.mixture import Mixture
from fairway.evaluate.learners.phased import Phased
from fairway.evaluate.learners.sgd import Sgd
from fairway.evaluate.learners.tilt import Tilt
from fairway.evaluate.ledger import Margins
from fairway.model.adapters import AdapterConfig
from fairway.proof.proof_file import ProofFile
from fairway.proof.prove import prove
from fairway.proof.reproducible import NotReproducible
from fairway.proof.verify import verify

from .conftest import DOCUMENTS, FROZEN, corpus, loaded
from .noise import EVERYTHING, shaken

STREAM = replace(FROZEN, arithmetic="settled")
APART = replace(STREAM, documents=True, rows=2)
SGD = Sgd(chunk_tokens=16, epochs=2, lr=0.05, batch_sequences=2)
TILT = Tilt(order=3, threshold=0.5)
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
    "tilt": replace(STREAM, tilt=TILT),
    "muon and tilt": replace(STREAM, ttt=replace(SGD, optimizer="muon"), tilt=TILT),
    "adapters and tilt": replace(APART, ttt=ADAPTERS, tilt=TILT),
    "sgd, tilt and mixture": replace(STREAM, ttt=SGD, tilt=TILT, mixture=Mixture()),
}
# So coarse that a few hundred tokens have many ties.
COARSE = Margins(logit=1e-5, state=2.0**-25, gradient=2.0**-25, state_bits=14)


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
    assert -8 < spare < 16  # by chance few bytes name a point of the last slice
    assert verify(path, model, rows=1).documents == tuple(DOCUMENTS)


def test_rows_that_idle_follow_no_ties_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside a longer window a shorter one goes on past its end, where another document's ties
    stand."""
    monkeypatch.setattr(NoLearning, "margins", lambda self: COARSE)
    model, path = loaded(APART), tmp_path / "proof.fwp"
    certificate = prove(model, corpus(DOCUMENTS), out=path, guard=False)
    assert certificate.holds, certificate.verdict
    told = ProofFile.from_bytes(path.read_bytes()).ties.logits
    behind = {start + 1 for start in corpus(DOCUMENTS).document_starts[1:]}
    assert behind & {place // model.model.config.vocab_size for place in told}


ONCE = replace(SGD, epochs=1, batch_sequences=8)  # so that noise enters once a lesson
SHAKEN = {
    "sgd": replace(STREAM, ttt=ONCE, mixture=Mixture()),
    "muon": replace(STREAM, ttt=replace(ONCE, optimizer="muon")),
    "adamw": replace(STREAM, ttt=replace(ONCE, optimizer="adamw", lr=0.01)),
    "adapters": replace(APART, ttt=ADAPTERS),
}


@pytest.mark.parametrize("where", EVERYTHING)
@pytest.mark.parametrize("way", SHAKEN)
def test_noise_of_half_a_margin_decodes_and_more_is_refused_or_decodes_as_well(
    way: str, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never another text."""
    torch.manual_seed(2)
    for kind in (Sgd, DocumentAdapters):
        monkeypatch.setattr(kind, "margins", lambda self: COARSE)
    model, path = loaded(SHAKEN[way]), tmp_path / "proof.fwp"
    certificate = prove(model, corpus(DOCUMENTS), out=path, guard=False)
    assert certificate.settled is not None
    assert certificate.settled.ties > 2
    refused = []
    for times in (0.5, 10.0, 100.0, 1e3, 1e5):
        try:
            with shaken(times, where):
                assert verify(path, model).documents == tuple(DOCUMENTS)
        except NotReproducible:
            refused.append(times)
    assert 0.5 not in refused
    assert 1e5 in refused


def test_native_proofs_take_no_other_threads(proof) -> None:
    path, model = proof
    with pytest.raises(ValueError, match="native arithmetic"):
        verify(path, model, threads=2)
    with pytest.raises(ValueError, match="native arithmetic"):
        verify(path, model, any_batch=True)


@pytest.mark.parametrize("way", ["frozen", "adapters and mixture"])
def test_any_batch_takes_the_threads_that_are_fastest_here(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, path = loaded(WAYS[way]), tmp_path / "proof.fwp"
    prove(model, corpus(DOCUMENTS), out=path, guard=False)
    assert verify(path, model, any_batch=True).documents == tuple(DOCUMENTS)
    seen = []
    monkeypatch.setattr(
        "fairway.proof.verify._step_seconds",
        lambda model, rows, threads: seen.append((rows, threads)) or -threads,
    )
    monkeypatch.setattr(
        "fairway.proof.verify.decode_proof", lambda *_, threads, **__: seen.append(threads)
    )
    verify(path, model, any_batch=True)
    assert seen[-1] == max(threads for _, threads in seen[:-1])
    assert {rows for rows, _ in seen[:-1]} == {1 if way == "frozen" else len(DOCUMENTS)}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("way", ["frozen", "sgd", "muon", "adapters and mixture"])
def test_what_a_cpu_encoded_a_gpu_decodes_and_the_other_way_round(way: str, tmp_path: Path) -> None:
    paths = [tmp_path / "cpu.fwp", tmp_path / "cuda.fwp"]
    models = [loaded(WAYS[way]), loaded(WAYS[way])]
    models[1].model.to("cuda")
    for model, path in zip(models, paths, strict=True):
        prove(model, corpus(DOCUMENTS), out=path)
    for model in models:
        for path in paths:
            assert verify(path, model, any_batch=True).documents == tuple(DOCUMENTS)


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
