"""Tuning reads training text only, ends in time, and never makes the text it reads dearer."""

import shlex
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from fairway.artifact.loaded_model import LoadedModel
from fairway.cli.answer import with_settings
from fairway.evaluate.config import EvaluateConfig
from fairway.evaluate.learners.documents import DocumentAdapters
from fairway.evaluate.learners.mixture import Mixture
from fairway.evaluate.learners.phased import Phased
from fairway.evaluate.learners.sgd import Sgd
from fairway.model.adapters import AdapterConfig
from fairway.model.attention import AttentionConfig
from fairway.model.gpt import GPT
from fairway.model.model_config import ModelConfig
from fairway.prepare import prepare_documents
from fairway.tokens.shards import DataFolder
from fairway.tune import TuneConfig, held_out, tune

VERSES = [f"{i} green bottles hang on wall {i % 7}, ".encode() * 8 for i in range(30)]
SGD = EvaluateConfig(context=32, stride=16, ttt=Sgd(chunk_tokens=64, epochs=1, lr=0.01))
SMALL = DocumentAdapters(adapters=AdapterConfig(rank=4, alpha=4.0), lr=0.001)


@dataclass(frozen=True)
class Settings:
    """Something with an evaluation, as recipes have one."""

    evaluate: EvaluateConfig


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataFolder:
    out = tmp_path_factory.mktemp("tune") / "data"
    prepare_documents(out, VERSES[:-2], VERSES[-2:], vocab_size=300, source="a song")
    for file in out.glob("val_*.bin"):
        file.write_bytes(b"never to be opened")
    return DataFolder(out)


@pytest.fixture(scope="module")
def loaded(data: DataFolder) -> LoadedModel:
    torch.manual_seed(0)
    attention = AttentionConfig(num_heads=2, num_kv_heads=2, rope_dims=4)
    config = ModelConfig(
        vocab_size=300, model_dim=16, num_layers=2, attention=attention, train_context=32
    )
    return LoadedModel(model=GPT(config).eval(), tokenizer=data.tokenizer)


def test_validation_text_is_never_opened_and_the_answer_is_never_worse(
    loaded: LoadedModel, data: DataFolder
) -> None:
    said: list[str] = []

    def progress(done: float = 0.0, total: float = 0.0, *, text: str = "", **_: float) -> None:
        said.append(text)

    found = tune(loaded, data, SGD, TuneConfig(trials=4, tokens=200), progress)
    with pytest.raises(ValueError, match="val"):
        data.val  # noqa: B018  (it cannot even be)
    assert found.best <= found.baseline
    assert found.trials <= 5
    assert "training tokens" in said[0]


def test_the_winning_flags_are_settings_that_the_command_line_takes(
    loaded: LoadedModel, data: DataFolder
) -> None:
    timid = Sgd(chunk_tokens=64, epochs=1, lr=1e-3)
    both = replace(SGD, ttt=timid, mixture=Mixture(fade=1999.0, memory=0.9, open=0.95))
    found = tune(loaded, data, both, TuneConfig(trials=8, tokens=200))
    assert found.override
    settings = [word for word in shlex.split(found.flags) if word != "--set"]
    again = with_settings(Settings(both), settings)
    assert again.evaluate.resolved(32) == found.config


def test_the_same_seed_finds_the_same(loaded: LoadedModel, data: DataFolder) -> None:
    config = TuneConfig(trials=3, tokens=150, seconds=600)
    first, second = (tune(loaded, data, SGD, config) for _ in range(2))
    assert (first.best, first.override) == (second.best, second.override)


@pytest.mark.parametrize(
    "ttt",
    [SMALL, Phased(pauses=(1, 2), adapters=SMALL, sgd=Sgd(chunk_tokens=32, epochs=1))],
    ids=["adapters", "phased"],
)
def test_every_way_to_learn_has_a_search(
    ttt: DocumentAdapters | Phased, loaded: LoadedModel, data: DataFolder
) -> None:
    present = EvaluateConfig(context=32, stride=16, documents=True, rows=4, ttt=ttt)
    found = tune(loaded, data, present, TuneConfig(trials=2, tokens=150))
    assert found.best <= found.baseline


def test_a_learner_from_outside_has_the_search_that_it_suggests(
    sign_steps: type, loaded: LoadedModel, data: DataFolder
) -> None:
    present = replace(SGD, ttt=sign_steps(lr=0.5, chunk_tokens=64))
    found = tune(loaded, data, present, TuneConfig(trials=3, tokens=150))
    assert found.best <= found.baseline
    assert set(found.override) <= {"ttt.lr"}


def test_a_learner_that_suggests_nothing_cannot_be_tuned(
    sign_steps: type, loaded: LoadedModel, data: DataFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(sign_steps, "suggest")
    present = replace(SGD, ttt=sign_steps(chunk_tokens=64))
    with pytest.raises(ValueError, match="SignSteps suggests no values to a search"):
        tune(loaded, data, present, TuneConfig(trials=3, tokens=150))


def test_the_search_ends_in_time(loaded: LoadedModel, data: DataFolder) -> None:
    found = tune(loaded, data, SGD, TuneConfig(seconds=1.0, tokens=400))
    assert found.seconds < 6.0  # a trial ends with the chunk it is in; the first one is whole


def test_settings_that_miss_the_clock_are_not_tried(loaded: LoadedModel, data: DataFolder) -> None:
    config = TuneConfig(trials=3, tokens=150, eval_seconds=1e-6, eval_tokens=10_000)
    found = tune(loaded, data, SGD, config)
    assert found.trials == 1  # the present settings alone
    assert not found.override


def test_held_out_text_is_whole_documents_from_the_end(data: DataFolder) -> None:
    text = held_out(data, 120)
    tokens = text.tokens
    assert len(tokens) >= 120
    assert text.document_starts[0] == 0
    assert len(text.target_bytes) == len(tokens) - 1
    assert torch.equal(tokens, torch.from_numpy(data.train[:].astype("int64"))[-len(tokens) :])


def test_what_cannot_be_tuned_is_an_error(loaded: LoadedModel, data: DataFolder) -> None:
    with pytest.raises(ValueError, match="nothing in this evaluation learns"):
        tune(loaded, data, replace(SGD, ttt=None), TuneConfig())
    with pytest.raises(ValueError, match="must be positive"):
        TuneConfig(seconds=0.0)
    with pytest.raises(ValueError, match="give both"):
        TuneConfig(eval_seconds=3.0)


def test_a_result_says_what_it_is_worth(
    loaded: LoadedModel, data: DataFolder, tmp_path: Path
) -> None:
    found = tune(loaded, data, SGD, TuneConfig(trials=1, tokens=150))
    found.write(tmp_path / "tuned.json")
    assert "training may have read" in (tmp_path / "tuned.json").read_text()
