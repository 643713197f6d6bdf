"""The commands one after another, as typed, on a model of a few thousand weights."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fairway.artifact.loaded_model import load_model
from fairway.cli import main
from fairway.evaluate import timed
from fairway.interop.environment import model_config, parse_environment
from fairway.interop.published_weights import published_shapes
from fairway.prepare import prepare_documents
from fairway.runtime import setup

VERSES = [f"{i} green bottles hanging on the wall, {i * 7} more. ".encode() * 6 for i in range(40)]
TINY = {
    "tokens.vocab_size": 300,
    "model.vocab_size": 300,
    "model.num_layers": 2,
    "model.model_dim": 32,
    "model.train_context": 32,
    "model.attention.num_heads": 2,
    "model.attention.num_kv_heads": 2,
    "model.attention.rope_dims": 8,
    "model.attention.exclusive_layers": 1,
    "train.steps": 5,
    "train.batch.rows": 2,
    "train.batch.context": 32,
    "train.batch.micro_batches": 3,
    "evaluate.context": 32,
    "evaluate.stride": 32,
    "quant.calibration_batches": 2,
}
Ask = Callable[..., dict]


OPTIONS = [w for path, value in TINY.items() for w in ("--" + path.replace("_", "-"), str(value))]


# Both sides of a comparison must compute alike, whatever is faster on this machine.
IN_FLOAT32 = """
import sys, torch
from fairway.artifact.loaded_model import load_model
from fairway.cli import main
from fairway.runtime import setup
setup.choose_compute_dtype = lambda device, ranks=None: (torch.float32, "as the test wants it")
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    prepare_documents(folder / "data", VERSES[:-1], VERSES[-1:], vocab_size=300, source="a song")
    train = ["train", "pocket", str(folder / "data"), "--out", str(folder / "run"), *OPTIONS]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(
            setup, "choose_compute_dtype", lambda *_, **__: (torch.float32, "as the test wants it")
        )
        assert main(train) == 0
    assert main(["pack", str(folder / "run"), str(folder / "data")]) == 0
    (folder / "file.txt").write_bytes(VERSES[3] + b"\xff\x00\n" + VERSES[7])
    return folder


@pytest.fixture
def ask(work: Path, capsysbinary: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Ask:
    monkeypatch.chdir(work)

    def run(*argv: str, status: int = 0) -> dict:
        assert main([*argv, "--json"]) == status, capsysbinary.readouterr().err.decode()
        return json.loads(capsysbinary.readouterr().out.splitlines()[-1])

    return run


MODEL = "run/model.fwy"


def test_a_model_is_scored_as_it_says_or_as_told(ask: Ask) -> None:
    learning = ask("score", MODEL, "data")
    frozen = ask("score", MODEL, "data", "--set", "evaluate.ttt=null", "--set",
                 "evaluate.mixture=null")  # fmt: skip
    assert learning["tokens"] == frozen["tokens"]
    assert learning["bits_per_byte"] < frozen["bits_per_byte"]
    short = ask("score", MODEL, "data", "--tokens", "33", "--evaluate.stride", "16")
    assert short["tokens"] == 32


def test_a_proof_is_made_and_verified(ask: Ask, work: Path) -> None:
    made = ask("prove", MODEL, "data", "--tokens", "60", "--out", "p.fwp")
    assert made["decoded_equal"]
    assert json.loads((work / "p.json").read_text())["num_tokens"] == 60
    assert ask("verify", "p.fwp", MODEL, "--text", "p.txt")["equal"]
    assert VERSES[-1].startswith((work / "p.txt").read_bytes()[:40])


def test_a_file_comes_back_as_it_was_or_not_at_all(ask: Ask, work: Path) -> None:
    size = ask("compress", MODEL, "file.txt", "file.fwc")["bytes"]
    assert size < len((work / "file.txt").read_bytes())
    ask("decompress", MODEL, "file.fwc", "again.txt")
    assert (work / "again.txt").read_bytes() == (work / "file.txt").read_bytes()
    damaged = bytearray((work / "file.fwc").read_bytes())
    damaged[-3] ^= 1
    (work / "damaged.fwc").write_bytes(damaged)
    assert main(["decompress", MODEL, "damaged.fwc", "none.txt"]) == 2
    assert not (work / "none.txt").exists()


def test_text_is_written_the_prompt_first(ask: Ask) -> None:
    one = ask("generate", MODEL, "--prompt", "3 green", "--num-tokens", "12")["text"]
    assert one.startswith("3 green")
    assert one == ask("generate", MODEL, "--prompt", "3 green", "--num-tokens", "12")["text"]


@pytest.mark.slow
def test_two_ranks_train_what_one_trains(work: Path, tmp_path: Path) -> None:
    """Through torchrun, as on eight GPUs: three micro-batches a step over two ranks."""
    (tmp_path / "in_float32.py").write_text(IN_FLOAT32)
    command = [
        str(tmp_path / "in_float32.py"), "train", "pocket", str(work / "data"), "--threads", "1",
        "--out", str(tmp_path), *OPTIONS,
    ]  # fmt: skip
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", *command]
    done = subprocess.run(
        torchrun, capture_output=True, text=True, timeout=120, env={**os.environ}, check=False
    )
    assert done.returncode == 0, done.stderr
    alone = load_file(work / "run" / "checkpoint.safetensors")
    both = load_file(tmp_path / "checkpoint.safetensors")
    assert alone.keys() == both.keys()
    for name in (n for n in alone if n.startswith("model.")):
        torch.testing.assert_close(both[name], alone[name], rtol=1e-4, atol=5e-5, msg=name)


def test_a_published_checkpoint_becomes_a_model(ask: Ask, work: Path) -> None:
    env = {
        "VOCAB_SIZE": "300", "NUM_LAYERS": "2", "MODEL_DIM": "32", "NUM_HEADS": "2",
        "NUM_KV_HEADS": "1", "TRAIN_SEQ_LEN": "32",
    }  # fmt: skip
    (work / "env.json").write_text(json.dumps(env))
    shapes = published_shapes("baseline", model_config(parse_environment("baseline", env)))
    torch.manual_seed(0)
    torch.save({name: torch.randn(shape) / 8 for name, shape in shapes.items()}, work / "theirs.pt")
    tokenizer = "data/tokenizer.model"
    made = ask("import", "theirs.pt", "--lineage", "baseline", "--env", "env.json", "--tokenizer",
               tokenizer, "--out", "theirs.fwy")  # fmt: skip
    assert made["params"] > 10_000
    before = ask("score", "theirs.fwy", "data")["bits_per_byte"]
    packed = ask("pack", "theirs.fwy", "data", "--recipe", "pr1394", "--out", "small.fwy")
    assert packed["bytes_total"] < 0.6 * made["bytes"]  # small tensors stay in half precision
    assert ask("score", "small.fwy", "data")["bits_per_byte"] == pytest.approx(before, rel=0.05)


def test_a_run_starts_from_a_published_script_s_variables(ask: Ask, work: Path) -> None:
    env = {"NUM_LAYERS": "3", "MODEL_DIM": "32", "NUM_HEADS": 2, "NUM_KV_HEADS": 1,
           "TRAIN_SEQ_LEN": 32, "VOCAB_SIZE": 300, "TRAIN_BATCH_TOKENS": 512}  # fmt: skip
    (work / "run_env.json").write_text(json.dumps(env))
    answer = ask("train", "naive_baseline", "data", "--env", "run_env.json", "--train.steps", "2",
               "--out", "from_env")  # fmt: skip
    recipe = json.loads((work / "from_env" / "recipe.json").read_text())
    assert recipe["model"]["num_layers"] == 3
    assert recipe["model"]["model_dim"] == 32
    assert answer["tokens"] == 2 * 512
    (work / "run_env.json").write_text('{"NUM_LAYERZ": "3"}')
    assert main(["train", "naive_baseline", "data", "--env", "run_env.json"]) == 2


def test_a_checkpoint_never_gives_one_model_the_score_of_another(
    ask: Ask, work: Path, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture
) -> None:
    """The first evaluation is interrupted; the other goes on from nothing of it."""
    asked = ["score", MODEL, "data", "--checkpoint", "kept"]

    def dies(self: object, *args: object) -> None:
        saves(self, *args)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    saves = timed.Saved.save
    with monkeypatch.context() as patched:
        at_once = partial(timed.CheckpointConfig, every_seconds=0.0)
        patched.setattr("fairway.pipeline.scoring.CheckpointConfig", at_once)
        patched.setattr(timed.Saved, "save", dies)
        assert main(asked) not in (0, 1, 2)
    assert (work / "kept").is_file()
    loaded = load_model(work / MODEL)
    other = replace(loaded, sha256="0" * 64)
    with monkeypatch.context() as patched:
        patched.setattr("fairway.cli.judge.open_model", lambda path: other)
        assert main(asked) == 2
    assert "another evaluation" in capsysbinary.readouterr().err.decode()
    assert main([*asked, "--seed", "5"]) == 2
    assert main([*asked, "--evaluate.stride", "16"]) == 2
    assert ask(*asked)["tokens"] > 0
    assert not (work / "kept").exists()
