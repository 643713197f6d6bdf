"""What uses a model, as typed: files made small and whole again, and text."""

from pathlib import Path

from fairway.cli import main

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
