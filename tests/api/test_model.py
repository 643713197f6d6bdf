"""A model file in the hands of people: the same numbers as everywhere else, in one object."""

import inspect
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch

import fairway
from fairway.api.model import Model
from fairway.artifact.config_json import config_to_json
from fairway.artifact.container import pack
from fairway.evaluate.config import EvaluateConfig, make_predictor, plan_text
from fairway.evaluate.learners.mixture import Mixture
from fairway.evaluate.learners.sgd import Sgd
from fairway.evaluate.timed import evaluate_in_time
from fairway.model.attention import AttentionConfig
from fairway.model.gpt import GPT
from fairway.model.model_config import ModelConfig
from fairway.tokens.tokenizer import ByteTokenizer
from fairway.tokens.val_text import ValText

LEARNING = EvaluateConfig(
    context=16, stride=8, ttt=Sgd(chunk_tokens=16, lr=0.05), mixture=Mixture()
)
VERSE = "to be, or not to be — that is the question: " * 3


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(5)
    attention = AttentionConfig(num_heads=2, num_kv_heads=1)
    config = ModelConfig(
        vocab_size=264, model_dim=16, num_layers=2, attention=attention, train_context=16
    )
    model = GPT(config)
    torch.nn.init.normal_(model.embed.weight, std=0.5)
    described = {"model": config_to_json(config), "evaluate": config_to_json(LEARNING)}
    tensors = {name: t.half() for name, t in model.shipped_state_dict().items()}
    path = tmp_path_factory.mktemp("model") / "model.fwy"
    path.write_bytes(pack(described, ByteTokenizer().to_bytes(), tensors))
    return path


@pytest.fixture(scope="module")
def model(file: Path) -> Model:
    return fairway.load(file)


def test_a_path_a_text_and_bytes_give_the_same_model(file: Path, model: Model) -> None:
    ids = model.encode("once")
    for source in (str(file), file.read_bytes()):
        assert torch.equal(fairway.load(source).logits(ids), model.logits(ids))
    assert model.sha256 == fairway.load(file.read_bytes()).sha256


@pytest.mark.parametrize("text", ["", "Grüße\n\n", b"\xff\x00\xfe", "a" * 100])
def test_decoding_gives_the_exact_bytes(model: Model, text: str | bytes) -> None:
    raw = text if isinstance(text, bytes) else text.encode()
    ids = model.encode(text)
    assert ids.dtype == np.int64
    assert ids[0] == model.bos_id
    assert model.decode(ids) == model.decode(model.encode(text, bos=False)) == raw


def test_logits_take_one_row_or_many_of_any_integers(model: Model) -> None:
    ids = model.encode("to be")
    one = model.logits(ids)
    assert one.shape == (6, 264)
    assert one.dtype == torch.float32
    rows = torch.from_numpy(np.stack([ids, ids])).to(torch.int32)
    for given in (ids.tolist(), ids.astype(np.uint16), torch.from_numpy(ids)):
        assert torch.equal(model.logits(given), one)
    torch.testing.assert_close(model.logits(rows)[1], one)


@pytest.mark.parametrize(
    ("ids", "said"),
    [([1, 264], "264 is no id"), ([-1], "-1 is no id"), ([0.5], "integers"), ([], "n >= 1")],
)
def test_what_is_no_id_is_named(model: Model, ids: list, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        model.logits(ids)


def test_a_spare_id_stands_for_no_bytes(model: Model) -> None:
    with pytest.raises(ValueError, match="262 is a spare one"):
        model.decode([70, 262])


@pytest.mark.parametrize("learn", [True, False])
def test_a_score_is_the_evaluations_own_token_by_token(model: Model, learn: bool) -> None:
    config = LEARNING if learn else replace(LEARNING, ttt=None, mixture=None)
    text = ValText.of_documents([VERSE.encode()], model.tokenizer)
    plans = plan_text(config, text)
    found = evaluate_in_time(make_predictor(model.loaded.model, config), plans, text)
    score = model.score(VERSE, learn=learn)
    assert score.bits_per_byte == pytest.approx(found.score.bits_per_byte, rel=1e-12)
    assert (score.num_bytes, score.num_tokens) == (len(VERSE.encode()), len(score.token_bits))
    assert score.learned is learn
    assert score.byte_bits.sum() == pytest.approx(score.bits)
    assert len(score.byte_bits) == score.num_bytes


def test_a_frozen_score_is_read_off_the_logits(model: Model) -> None:
    text = "to be or not"
    ids = torch.from_numpy(model.encode(text))
    nats = -model.logits(ids).double().log_softmax(-1)[:-1].gather(1, ids[1:, None])[:, 0]
    evaluate = EvaluateConfig(context=32, stride=32)
    score = model.score(text, evaluate=evaluate)
    np.testing.assert_allclose(score.token_bits * np.log(2), nats.numpy(), rtol=1e-5)


def test_several_documents_each_begin_anew(model: Model) -> None:
    score = model.score(["to be", b"or not"], learn=False)
    assert score.num_bytes == 11
    assert score.num_tokens == 12  # the second document's BOS is priced too
    assert score.tokens.tolist().count(model.bos_id) == 1


@pytest.mark.parametrize("nothing", ["", b"", [], ["", ""]])
def test_nothing_has_no_score(model: Model, nothing) -> None:
    with pytest.raises(ValueError, match="no byte to score"):
        model.score(nothing)


def test_what_is_no_text_is_refused(model: Model) -> None:
    with pytest.raises(ValueError, match="not int"):
        model.score([3])  # type: ignore[list-item]


def test_writing_comes_in_whole_characters(model: Model) -> None:
    pieces = list(model.generate("to be", num_tokens=40, temperature=1.5, seed=3))
    assert "".join(pieces).encode()  # no half of a character is left
    assert pieces == list(model.generate("to be", num_tokens=40, temperature=1.5, seed=3))


def test_any_bytes_come_back_from_fewer_or_more(model: Model) -> None:
    data = VERSE.encode() + b"\xff\x00"
    assert model.decompress(model.compress(data)) == data
    for same in (bytearray(data), memoryview(data)):
        assert model.decompress(bytearray(model.compress(same))) == data
    with pytest.raises(TypeError, match="bytes-like"):
        model.compress(VERSE)  # type: ignore[arg-type]


def test_numbers_of_numpys_are_numbers(model: Model) -> None:
    asked: dict[str, Any] = {"num_tokens": 9, "top_k": 5, "seed": 4, "context": 12}
    whole = list(model.generate("to be", **asked))
    given: dict[str, Any] = {name: np.int64(value) for name, value in asked.items()}
    assert list(model.generate("to be", **given)) == whole
    with pytest.raises(ValueError, match=r"stop='no'"):
        model.generate("to be", stop="no")


def test_a_run_from_its_recipe_file_is_the_recipe(tmp_path: Path) -> None:
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps(config_to_json(fairway.recipe("pr1413"))))
    assert fairway.recipe(str(path)) == fairway.recipe("pr1413")
    path.write_text('{"name": 3}')
    with pytest.raises(ValueError, match=r"recipe\.json: Recipe lacks"):
        fairway.recipe(str(path))


def test_the_python_in_the_readme_runs(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Preparing and running, which take minutes, are held against their signatures only."""
    text = (Path(__file__).parents[2] / "README.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    for name in ("prepare", "run"):
        signature = inspect.signature(getattr(fairway, name))
        bound = Mock(side_effect=signature.bind)
        monkeypatch.setattr(fairway, name, bound)
    monkeypatch.setattr(fairway, "load", lambda path: model)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").write_text("some notes")
    exec(compile(code.replace("result.score, result.holds", "result"), "README.md", "exec"), {})
