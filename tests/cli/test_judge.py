"""What judges a model, as typed: its score, a proof and its decoder."""

import json
from pathlib import Path

from .conftest import MODEL, VERSES, Ask


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
