"""Any file comes back byte for byte, or is refused with the reason."""

import random
from dataclasses import replace
from functools import partialmethod
from pathlib import Path
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fairway.artifact.sections import Refused, unpack_frame
from fairway.evaluate.config import Arithmetic, EvaluateConfig
from fairway.evaluate.learners.documents import DocumentAdapters
from fairway.evaluate.learners.mixture import Mixture
from fairway.evaluate.learners.sgd import Sgd
from fairway.evaluate.ledger import Margins
from fairway.model.adapters import AdapterConfig
from fairway.proof import compress as compressing
from fairway.proof.compress import (
    CompressConfig,
    code,
    compress,
    compress_file,
    decompress,
    decompress_file,
)
from fairway.proof.reproducible import NotReproducible
from fairway.proof.stored import store
from fairway.tokens.tokenizer import train_bpe

from .conftest import loaded, tiny_model

PLAIN = EvaluateConfig(context=16, stride=8)
TEXT = b"the cat sat on the mat; the rat sat on the cat. \xff\x00\r\n " * 4
WAYS = {
    "plain": PLAIN,
    "sgd": replace(PLAIN, ttt=Sgd(chunk_tokens=64, epochs=2, lr=0.05)),
    "mixture": replace(PLAIN, mixture=Mixture(orders=(1, 2, 3))),
    "both": replace(PLAIN, ttt=Sgd(chunk_tokens=16, lr=0.05), mixture=Mixture(orders=(1, 2, 3))),
    "adapters": replace(
        PLAIN,
        documents=True,
        rows=2,
        ttt=DocumentAdapters(adapters=AdapterConfig(rank=2, targets=("query", "head")), lr=0.02),
    ),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("segments", [1, 5])
@pytest.mark.parametrize("arithmetic", get_args(Arithmetic))
def test_bytes_come_back_however_the_model_learns(
    way: str, segments: int, arithmetic: Arithmetic
) -> None:
    model = loaded(WAYS[way])
    config = CompressConfig(segments=segments, every=50, arithmetic=arithmetic, guard=False)
    packed = code(model, TEXT, config)
    assert decompress(model, packed) == TEXT


@pytest.mark.parametrize("segments", [1, 5])
def test_bytes_come_back_where_a_learner_from_outside_learns(
    segments: int, sign_steps: type
) -> None:
    model = loaded(replace(PLAIN, ttt=sign_steps(lr=0.01, chunk_tokens=64)))
    config = CompressConfig(segments=segments, guard=False)
    packed = code(model, TEXT, config)
    assert decompress(model, packed) == TEXT
    assert packed[-40:] != code(loaded(PLAIN), TEXT, config)[-40:]


@settings(max_examples=25, deadline=None)
@given(st.binary(max_size=60), st.none() | st.integers(1, 9))
def test_any_bytes_come_back(data: bytes, segments: int | None) -> None:
    model = loaded(PLAIN)
    assert decompress(model, code(model, data, CompressConfig(segments=segments))) == data


def test_bytes_come_back_through_a_trained_tokenizer() -> None:
    tokenizer = train_bpe([TEXT * 3], 290)
    model = replace(
        loaded(PLAIN), tokenizer=tokenizer, model=tiny_model(vocab_size=tokenizer.vocab_size)
    )
    packed = code(model, TEXT)
    assert decompress(model, packed) == TEXT


@pytest.mark.parametrize(
    ("way", "guard"), [("both", "Guard"), ("mixture", "deviation_here"), ("sgd", "deviation_here")]
)
def test_what_another_machine_might_not_open_is_not_written(
    way: str, guard: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A whole process looks where something is learned; the text of "sgd" is too short for that."""
    model, asked = loaded(WAYS[way]), []
    kept = getattr(compressing, guard)
    monkeypatch.setattr(
        compressing, guard, lambda *given, **more: asked.append(guard) or kept(*given, **more)
    )
    text = TEXT[:60] if way == "sgd" else TEXT
    (tmp_path / "in").write_bytes(text)
    assert decompress(model, code(model, text)) == text
    assert asked == [guard]
    monkeypatch.setattr(Margins, "__init__", partialmethod(Margins.__init__, logit=1e-15))
    with pytest.raises(ValueError, match="needs ten times less"):
        code(model, text)
    assert decompress(model, code(model, text, CompressConfig(guard=False))) == text


def test_a_file_says_that_nobody_guarded_it() -> None:
    packed = code(loaded(PLAIN), TEXT, CompressConfig(guard=False))
    assert unpack_frame(compressing.MAGIC, packed, "a file").header["unguarded"]
    assert "unguarded" not in unpack_frame(compressing.MAGIC, code(loaded(PLAIN), TEXT), "").header
    other = loaded(PLAIN)
    with torch.no_grad():
        other.model.embed.weight.mul_(1.01)
    with pytest.raises(NotReproducible, match="compressed with guard=False"):
        decompress(other, packed)


def test_learning_while_compressing_pays() -> None:
    model = loaded(replace(WAYS["sgd"], mixture=Mixture(orders=(1, 2, 3))))
    adapted = code(model, TEXT, CompressConfig(adapt=True, guard=False))
    assert len(adapted) < len(code(model, TEXT, CompressConfig(adapt=False, guard=False)))


def test_every_flipped_byte_is_refused() -> None:
    model = loaded(PLAIN)
    packed = code(model, b"short text")
    for place in range(len(packed)):
        damaged = bytearray(packed)
        damaged[place] ^= 1 << place % 8
        with pytest.raises(Refused, match=r"damaged|cut off|not a file"):
            decompress(model, bytes(damaged))


def test_the_refusal_names_the_file_and_the_reason(tmp_path: Path) -> None:
    model, target = loaded(PLAIN), tmp_path / "out.txt"
    (tmp_path / "in.txt").write_bytes(TEXT)
    (tmp_path / "in.fwc").write_bytes(code(model, TEXT))
    assert decompress_file(model, tmp_path / "in.fwc", target) == len(TEXT)
    assert target.read_bytes() == TEXT

    target.unlink()
    with pytest.raises(Refused, match=r"in.txt: this is not a file that fairway compressed"):
        decompress_file(model, tmp_path / "in.txt", target)
    (tmp_path / "cut.fwc").write_bytes((tmp_path / "in.fwc").read_bytes()[:-1])
    with pytest.raises(Refused, match=r"cut.fwc: .*is cut off"):
        decompress_file(model, tmp_path / "cut.fwc", target)
    with pytest.raises(Refused, match=r"the file was made with the model"):
        decompress_file(loaded(PLAIN, num_layers=1), tmp_path / "in.fwc", target)
    other = loaded(PLAIN)
    with torch.no_grad():
        other.model.embed.weight.mul_(1.01)
    with pytest.raises(NotReproducible, match=r"in.fwc: .*other probabilities|Nothing was written"):
        decompress_file(other, tmp_path / "in.fwc", target)
    with pytest.raises(ValueError, match="no file at"):
        compress_file(model, tmp_path / "none", target)
    assert not target.exists()


@settings(max_examples=25, deadline=None)
@given(st.binary(max_size=200))
def test_nothing_grows_by_more_than_eight_bytes(data: bytes) -> None:
    model = loaded(PLAIN)
    packed = compress(model, data)
    assert len(packed) <= len(data) + 8
    assert decompress(model, packed) == data


def test_what_a_model_makes_no_smaller_is_stored(tmp_path: Path) -> None:
    model, noise = loaded(PLAIN), random.Random(0).randbytes(3000)
    assert len(code(model, noise)) > 3000
    (tmp_path / "noise").write_bytes(noise)
    size = compress_file(model, tmp_path / "noise", tmp_path / "noise.fwc")
    assert size == (tmp_path / "noise.fwc").stat().st_size == 3008
    assert decompress_file(model, tmp_path / "noise.fwc", tmp_path / "again") == 3000
    assert (tmp_path / "again").read_bytes() == noise


def test_every_flipped_byte_of_a_stored_file_is_refused() -> None:
    model, packed = loaded(PLAIN), store(b"short text")
    for place in range(len(packed)):
        damaged = bytearray(packed)
        damaged[place] ^= 1 << place % 8
        with pytest.raises(Refused, match=r"damaged|not a file|cut off"):
            decompress(model, bytes(damaged))
    for size in range(len(packed)):
        with pytest.raises(Refused):
            decompress(model, packed[:size])


def test_a_tokenizer_that_loses_bytes_is_refused() -> None:
    class Normalising:
        vocab_size, bos_id, kind, lossless = 260, 1, "sentencepiece", False

    with pytest.raises(ValueError, match=r"\(sentencepiece\) normalises its text"):
        code(replace(loaded(PLAIN), tokenizer=Normalising()), TEXT)  # type: ignore[arg-type]
