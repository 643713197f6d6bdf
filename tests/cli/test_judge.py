"""What judges a model, as typed: its score, a proof and its decoder."""

import gzip
import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from fairway.artifact.loaded_model import load_model
from fairway.cli import main
from fairway.evaluate import timed

from .conftest import MODEL, VERSES, Ask


def test_a_model_is_scored_as_it_says_or_as_told(ask: Ask) -> None:
    learning = ask("score", MODEL, "data")
    frozen = ask("score", MODEL, "data", "--set", "evaluate.ttt=null", "--set",
                 "evaluate.mixture=null")  # fmt: skip
    assert learning["tokens"] == frozen["tokens"]
    assert learning["bits_per_byte"] < frozen["bits_per_byte"]
    short = ask("score", MODEL, "data", "--tokens", "33", "--evaluate.stride", "16")
    assert short["tokens"] == 32


def test_any_text_is_scored_and_a_packed_one_alike(
    ask: Ask, work: Path, capsysbinary: pytest.CaptureFixture
) -> None:
    (work / "verse.txt").write_bytes(VERSES[3])
    plain = ask("score", MODEL, "verse.txt")
    assert plain["bytes"] == len(VERSES[3])
    (work / "verse.gz").write_bytes(gzip.compress(VERSES[3]))
    assert ask("score", MODEL, "verse.gz")["bits_per_byte"] == plain["bits_per_byte"]
    two = ask("score", MODEL, "verse.txt", "verse.gz", "--evaluate.stride", "16")
    assert two["bytes"] == 2 * plain["bytes"]
    (work / "empty.txt").write_text("")
    capsysbinary.readouterr()
    for wrong, said in (("empty.txt", "no byte to score"), ("data/nope", "no such source")):
        assert main(["score", MODEL, wrong]) == 2
        assert said in capsysbinary.readouterr().err.decode()
    assert main(["score", MODEL, "data", "verse.txt"]) == 2


def test_a_proof_is_made_and_verified(ask: Ask, work: Path) -> None:
    made = ask("prove", MODEL, "data", "--tokens", "60", "--out", "p.fwp")
    assert made["decoded_equal"]
    assert json.loads((work / "p.json").read_text())["num_tokens"] == 60
    assert ask("verify", "p.fwp", MODEL, "--text", "p.txt")["equal"]
    assert VERSES[-1].startswith((work / "p.txt").read_bytes()[:40])


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
        patched.setattr("fairway.evaluate.saved.CheckpointConfig", at_once)
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
