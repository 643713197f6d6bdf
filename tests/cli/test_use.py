"""What uses a model, as typed: files made small and whole again, and text."""

import json
import os
from pathlib import Path

import pytest

from fairway.cli import main
from fairway.runtime.native import switched_off

from .conftest import MODEL, Ask


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
    many = ask("generate", MODEL, "--prompt", "3 green", "--num-tokens", "12", "--samples", "2")
    assert many["texts"][0] == one != many["texts"][1]


def test_text_is_prepared_with_the_tokenizer_of_a_model(ask: Ask, work: Path) -> None:
    (work / "verse.txt").write_text("5 green bottles hanging on the wall")
    ask("prepare", "again", "file.txt", "--tokenizer", MODEL, "--val", "verse.txt")
    assert ask("score", MODEL, "again")["tokens"] > 0  # refused with any other tokenizer


def test_settings_that_cannot_be_are_refused_in_one_line(capsys: pytest.CaptureFixture) -> None:
    assert main(["generate", "model.fwy", "--temperature", "-1", "--json"]) == 2
    said, shown = capsys.readouterr()
    assert "temperature=-1.0 must lie within 0" in shown
    assert len(shown.splitlines()) == 1
    assert json.loads(said)["error"]["type"] == "ValueError"


def test_a_prompt_may_be_nothing_any_bytes_or_longer_than_the_context(ask: Ask) -> None:
    few = ("--num-tokens", "40", "--seed", "2")  # beyond the context of 32 with any prompt
    assert ask("generate", MODEL, *few)["text"]
    long = "green bottles " * 40
    assert ask("generate", MODEL, "--prompt", long, *few)["text"].startswith(long)
    broken = os.fsdecode(b"a \xff b")  # as Python hands on what is no UTF-8
    assert ask("generate", MODEL, "--prompt", broken, *few)["text"].startswith("a \ufffd b")
    two = ask("generate", MODEL, "--prompt", "3 green", "--samples", "2", "--stop", " ", *few)[
        "texts"
    ]
    assert all(text.count(" ") == 1 for text in two)


def test_who_decodes_without_the_step_in_c_is_told_why(
    ask: Ask, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    few = ("generate", MODEL, "--prompt", "3 green", "--num-tokens", "2")
    ask(*few)
    with switched_off():
        assert main([*few]) == 0
    told = [line for line in capsysbinary.readouterr().err.splitlines() if b"plain forward" in line]
    assert len(told) == 1
    assert b"not asked for" in told[0]
    assert main([*few]) == 0
    assert b"plain forward" not in capsysbinary.readouterr().err
