"""A score is proved by a file that decodes to the text, and by nothing else."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fairway.artifact.config_json import config_to_json
from fairway.artifact.container import pack
from fairway.artifact.loaded_model import LoadedModel, load_model
from fairway.evaluate.config import make_predictor, plan_text
from fairway.evaluate.learners.documents import DocumentAdapters
from fairway.evaluate.learners.mixture import Mixture
from fairway.evaluate.learners.phased import Phased
from fairway.evaluate.learners.sgd import Sgd
from fairway.evaluate.learners.tilt import Tilt
from fairway.evaluate.timed import evaluate_in_time
from fairway.model.adapters import AdapterConfig
from fairway.proof.proof_file import ProofFile
from fairway.proof.prove import evaluation_of, prove, validation_text
from fairway.proof.verify import verify
from fairway.tokens.tokenizer import ByteTokenizer

from .conftest import DOCUMENTS, FROZEN, corpus, loaded

LOCAL = DocumentAdapters(
    adapters=AdapterConfig(rank=2, alpha=4.0, targets=("query", "mlp", "head")), lr=0.02
)
TILT = Tilt(order=3, threshold=0.5, boost=1.0)
LEARN = Sgd(chunk_tokens=32, epochs=2, lr=0.05)
WAYS = {
    "frozen": FROZEN,
    "sgd": replace(FROZEN, ttt=LEARN),
    "adapters": replace(FROZEN, documents=True, rows=3, ttt=LOCAL),
    "phased": replace(
        FROZEN, documents=True, rows=2, ttt=Phased(pauses=(2,), adapters=LOCAL, sgd=LEARN)
    ),
    "mixture": replace(FROZEN, mixture=Mixture(orders=(0, 1, 2)), ttt=LEARN),
    "tilt": replace(FROZEN, tilt=TILT, ttt=LEARN, mixture=Mixture(orders=(0, 1))),
    "tilt of phased": replace(
        FROZEN,
        documents=True,
        rows=2,
        ttt=Phased(pauses=(2,), adapters=LOCAL, sgd=LEARN),
        tilt=TILT,
    ),
}


@pytest.mark.parametrize("way", ["sgd", "adapters", "phased", "mixture", "tilt"])
def test_a_score_with_skipped_lessons_is_proved_as_it_was_made(way: str, tmp_path: Path) -> None:
    model, text, learned = loaded(WAYS[way]), corpus(DOCUMENTS * 3), ((0, 1), (2, 4))
    config = WAYS[way].resolved(16)
    predictor = make_predictor(model.model, config)
    score = evaluate_in_time(predictor, plan_text(config, text), text, learned=learned).score
    certificate = prove(model, text, learned=learned, out=tmp_path / "proof.fwp")
    assert certificate.holds, certificate.verdict
    assert certificate.claimed_bits_per_byte == pytest.approx(score.bits_per_byte, abs=1e-6)
    assert ProofFile.from_bytes((tmp_path / "proof.fwp").read_bytes()).learned == learned
    other = prove(model, text, out=tmp_path / "other.fwp")
    assert other.claimed_bits_per_byte != certificate.claimed_bits_per_byte


@pytest.mark.parametrize("learned", [((2, 1),), ((0, 2), (2, 3)), ((-1, 2),), ((0, 10**9),)])
def test_lessons_that_cannot_have_been_are_refused(
    learned: tuple[tuple[int, int], ...], tmp_path: Path
) -> None:
    prove(loaded(WAYS["sgd"]), corpus(DOCUMENTS), out=tmp_path / "proof.fwp")
    proof = ProofFile.from_bytes((tmp_path / "proof.fwp").read_bytes())
    with pytest.raises(ValueError, match="learned chunks do not rise"):
        ProofFile.from_bytes(replace(proof, learned=learned).to_bytes())


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_evaluate_can_be_proved(way: str, tmp_path: Path) -> None:
    model = loaded(WAYS[way])
    text = corpus(DOCUMENTS)
    before = {name: tensor.clone() for name, tensor in model.model.state_dict().items()}
    certificate = prove(model, text, out=tmp_path / "proof.fwp")

    assert certificate.holds, certificate.verdict
    assert certificate.num_tokens == text.num_targets
    assert certificate.num_bytes == certificate.text_bytes == sum(map(len, DOCUMENTS))
    size = (tmp_path / "proof.fwp").stat().st_size
    assert certificate.coded_bytes + certificate.side_bytes == size
    now = model.model.state_dict()
    assert all(torch.equal(before[name], now[name]) for name in before)

    verification = verify(tmp_path / "proof.fwp", model)
    assert verification.documents == tuple(DOCUMENTS)
    assert verification.coded_bits_per_byte == certificate.coded_bits_per_byte


@pytest.mark.parametrize("way", ["sgd", "phased"])
def test_a_part_can_be_proved(way: str, tmp_path: Path) -> None:
    text = corpus(DOCUMENTS)
    model, out = loaded(WAYS[way]), tmp_path / "proof.fwp"
    few = prove(model, text, out=out, num_targets=30)
    assert few.holds
    assert few.num_tokens == 30
    assert verify(out, model).tokens.tolist() == text.tokens[:31].tolist()
    two = prove(model, text, out=out, num_documents=2)
    assert two.holds
    assert verify(out, model).documents == tuple(DOCUMENTS[:2])


def test_the_same_proof_is_the_same_bytes(proof: tuple[Path, LoadedModel], tmp_path: Path) -> None:
    path, model = proof
    prove(model, corpus(DOCUMENTS), out=tmp_path / "again.fwp")
    assert (tmp_path / "again.fwp").read_bytes() == path.read_bytes()


def test_decoding_knows_nothing_but_two_files(tmp_path: Path) -> None:
    """What was in memory while encoding is not what decodes: the model file is read again."""
    held = loaded(FROZEN)
    weights = {name: t.half() for name, t in held.model.shipped_state_dict().items()}
    config = {"model": config_to_json(held.model.config), "evaluate": held.evaluate}
    path = tmp_path / "model.fwy"
    path.write_bytes(pack(config, held.tokenizer.to_bytes(), weights))
    text, found_model = corpus(DOCUMENTS), load_model(path)
    assert prove(found_model, text, out=tmp_path / "proof.fwp").holds
    with torch.no_grad():
        found_model.model.embed.weight.mul_(
            1.5
        )  # better or worse than the file: not what it serves
    certificate = prove(found_model, text, out=tmp_path / "proof.fwp")
    assert not certificate.decoded_equal
    assert not certificate.holds


def test_a_score_that_flatters_is_not_proved(
    proof: tuple[Path, LoadedModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A predictor whose nats in batches are better than what a decoder can have."""
    from fairway.evaluate import frozen

    honest = frozen.chunk_nats
    monkeypatch.setattr(frozen, "chunk_nats", lambda *args: honest(*args) / 2)
    certificate = prove(proof[1], corpus(DOCUMENTS), out=tmp_path / "proof.fwp")
    assert certificate.decoded_equal
    assert not certificate.holds
    assert "look for a predictor whose score() sees more" in certificate.verdict


def test_bytes_counted_twice_are_not_proved(
    proof: tuple[Path, LoadedModel], tmp_path: Path
) -> None:
    text = corpus(DOCUMENTS)
    certificate = prove(
        proof[1], replace(text, target_bytes=2 * text.target_bytes), out=tmp_path / "proof.fwp"
    )
    assert not certificate.holds
    assert "counted too generously" in certificate.verdict


def test_a_model_without_an_evaluation_says_what_to_do() -> None:
    bare = replace(loaded(FROZEN), evaluate={})
    with pytest.raises(ValueError, match="does not say how it is evaluated"):
        evaluation_of(bare)


def test_text_of_another_tokenizer_is_refused(tmp_path: Path) -> None:
    from fairway.tokens.shards import DataFolder, write_shard
    from fairway.tokens.tokenizer import BpeTokenizer

    text = corpus(DOCUMENTS)
    write_shard(tmp_path / "val_000000.bin", text.tokens.numpy())
    (tmp_path / "tokenizer.model").write_bytes(ByteTokenizer().to_bytes())
    found = validation_text(loaded(FROZEN), DataFolder(tmp_path))
    assert torch.equal(found.tokens, text.tokens)
    assert torch.equal(found.target_bytes, text.target_bytes)
    (tmp_path / "tokenizer.model").write_bytes(BpeTokenizer(["th", "the"]).to_bytes())
    with pytest.raises(ValueError, match="another tokenizer than the model"):
        validation_text(loaded(FROZEN), DataFolder(tmp_path))
