"""Everything that parses bytes, in brief: a mutated input is read, or refused in one line."""

import random
from pathlib import Path

import parsers
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

NAMES = (
    "JSON", "sealed JSON", "JSON lines", "JSON lines, several", "frame", "frame, true sums",
    "proof", "model, less weights", "packed bytes", ".npy", "shard", "training log", ".pt",
    "our tokenizer", "our tokenizer, bytes", "model config", "evaluation", "recipe", "result",
    "audit report", "certificate", "byte table", "vocabulary", "request",
)  # fmt: skip


class Parsers:
    """By name."""

    def __init__(self, folder: Path) -> None:
        self.all = {parser.name: parser for parser in parsers.parsers(folder)}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Parsers:
    return Parsers(tmp_path_factory.mktemp("samples"))


def test_no_parser_is_left_out(made: Parsers) -> None:
    assert tuple(made.all) == NAMES


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=30)
@given(chance=st.randoms(use_true_random=False))
def test_a_mutated_input_is_read_or_refused_in_one_line(
    made: Parsers, name: str, chance: random.Random
) -> None:
    assert parsers.run(made.all[name], 1, chance)[3] == []


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=30)
@given(data=st.binary(max_size=80))
def test_any_bytes_are_read_or_refused_in_one_line(made: Parsers, name: str, data: bytes) -> None:
    as_it_is = made.all[name]._replace(seeds=[data], change=lambda data, _: data)
    assert parsers.run(as_it_is, 1, random.Random(1))[3] == []


def test_a_crash_is_seen() -> None:
    def crashes(data: bytes) -> object:
        raise KeyError("no such thing")

    broken = parsers.Parser("broken", 1, [b"a"], lambda data, _: data, crashes)
    assert "KeyError" in parsers.run(broken, 1, random.Random(0))[3][0]
