"""Several processes search together; each can be lost, and nothing but its own trial is."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
import torch
from optuna.storages.journal import JournalFileBackend, JournalStorage

from fairway.artifact.config_json import config_to_json
from fairway.artifact.container import pack
from fairway.artifact.loaded_model import LoadedModel, load_model
from fairway.evaluate.config import EvaluateConfig
from fairway.evaluate.learners.sgd import Sgd
from fairway.model.attention import AttentionConfig
from fairway.model.gpt import GPT, ModelConfig
from fairway.prepare import prepare_documents
from fairway.tokens.shards import DataFolder
from fairway.tune import TuneConfig, tune

VERSES = [f"{i} green bottles hang on wall {i % 7}, ".encode() * 8 for i in range(30)]
SGD = EvaluateConfig(context=32, stride=16, ttt=Sgd(chunk_tokens=64, epochs=1, lr=0.01))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataFolder:
    out = tmp_path_factory.mktemp("tune") / "data"
    prepare_documents(out, VERSES[:-2], VERSES[-2:], vocab_size=300, source="a song")
    return DataFolder(out)


@pytest.fixture(scope="module")
def loaded(data: DataFolder) -> LoadedModel:
    torch.manual_seed(0)
    attention = AttentionConfig(num_heads=2, num_kv_heads=2, rope_dims=4)
    model = GPT(
        ModelConfig(
            vocab_size=300, model_dim=16, num_layers=2, attention=attention, train_context=32
        )
    )
    config = {
        "recipe": "tiny",
        "model": config_to_json(model.config),
        "evaluate": config_to_json(SGD),
        "loops_active": model.loops_active,
    }
    file = data.path.parent / "model.fwy"
    file.write_bytes(pack(config, data.tokenizer.to_bytes(), model.shipped_state_dict()))
    return load_model(file)


def config(journal: Path, **changes: object) -> TuneConfig:
    return replace(TuneConfig(trials=2, tokens=150, journal=journal), **changes)  # type: ignore


def test_one_search_goes_on_with_what_others_found(
    loaded: LoadedModel, data: DataFolder, tmp_path: Path
) -> None:
    first = tune(loaded, data, SGD, config(tmp_path / "j"))
    again = tune(loaded, data, SGD, config(tmp_path / "j"))  # all trials are done already
    assert (again.best, again.override, again.trials) == (first.best, first.override, first.trials)
    more = tune(loaded, data, SGD, config(tmp_path / "j", trials=5))
    assert more.best <= first.best <= first.baseline
    assert more.trials <= 6


def test_another_model_text_or_setting_is_refused(
    loaded: LoadedModel, data: DataFolder, tmp_path: Path
) -> None:
    file = tmp_path / "j"
    tune(loaded, data, SGD, config(file, trials=1))
    other = replace(loaded, sha256="0" * 64)
    with pytest.raises(ValueError, match="is the search of another model; name another file"):
        tune(other, data, SGD, config(file))
    with pytest.raises(ValueError, match="another text, another seed"):
        tune(loaded, data, SGD, config(file, tokens=400, seed=3))
    with pytest.raises(ValueError, match="another present settings"):
        tune(loaded, data, replace(SGD, stride=8), config(file))
    assert tune(loaded, data, SGD, config(file)).trials <= 3


@pytest.mark.parametrize(
    "content",
    [
        b"x",
        b"no journal\n",
        b"[]\n",
        b"{}\n",
        b"\x80\x04\x95\n",
        b'{"op_code": 4}\n',
        b"[" * 99999,
        b'{"op_code": 99, "worker_id": "a"}\n{"op_code": 0}\n',
        b'{"op_code":0,"worker_id":3}\n',
        b'{"a": "line of somebody else"}\n{"b": ',
    ],
)
def test_what_is_no_journal_is_refused(
    loaded: LoadedModel, data: DataFolder, tmp_path: Path, content: bytes
) -> None:
    file = tmp_path / "j"
    file.write_bytes(content)
    with pytest.raises(ValueError, match="is no journal of a search") as said:
        tune(loaded, data, SGD, config(file))
    assert "\n" not in str(said.value)
    assert file.read_bytes() == content


def test_a_device_is_refused(loaded: LoadedModel, data: DataFolder) -> None:
    with pytest.raises(ValueError, match="is a device"):
        tune(loaded, data, SGD, config(Path("/dev/null")))


@pytest.mark.slow
def test_two_processes_share_trials_and_a_killed_one_loses_only_its_own(
    loaded: LoadedModel, data: DataFolder, tmp_path: Path
) -> None:
    journal = tmp_path / "journal"
    command = [sys.executable, "-m", "fairway", "tune", str(loaded.path), str(data.path)]
    command += ["--journal", str(journal), "--tokens", "400", "--seconds", "60", "--json"]

    def worker(trials: int) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [*command, "--trials", str(trials)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    lost = worker(1000)
    while not journal.exists() or journal.read_bytes().count(b"\n") < 40:
        assert lost.poll() is None, lost.communicate()
        time.sleep(0.01)
    os.kill(lost.pid, signal.SIGKILL)
    lost.communicate()
    with journal.open("ab") as file:
        file.write(b'{"op_code":6,"wor')  # as if it had been writing
    found = journal.read_bytes()
    before = len(_trials(tmp_path / "copy", found[: found.rindex(b"\n") + 1]))
    workers = [worker(before + 8), worker(before + 8)]
    answers = [one.communicate(timeout=120) for one in workers]
    assert [one.returncode for one in workers] == [0, 0], answers
    bests = [json.loads(out.splitlines()[-1])["best_bits_per_byte"] for out, _ in answers]
    values = [t.value for t in _trials(journal) if t.value is not None]
    baseline = json.loads(answers[0][0].splitlines()[-1])["baseline_bits_per_byte"]
    assert min(bests) == min(*values, baseline)
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    assert len({line["worker_id"] for line in lines if "trial_id" in line}) >= 2
    assert len(_trials(journal)) >= before + 8


def _trials(file: Path, content: bytes | None = None) -> list[optuna.trial.FrozenTrial]:
    if content is not None:
        file.write_bytes(content)
    backend = JournalFileBackend(str(file))
    storage = JournalStorage(backend)
    return optuna.load_study(study_name="fairway tune", storage=storage).trials
