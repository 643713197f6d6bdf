"""Compressors: bounds that hold for any compressor, and no figure that is silently missing."""

import importlib
import random
from dataclasses import replace
from typing import Any

import pytest

from fairway.report.compressors import (
    LIBRARIES,
    CompressorBudget,
    compare_with_compressors,
    ppmd_size,
    require,
    xz_size,
    zstd_size,
)

SMALL = CompressorBudget(ppmd_memory_bytes=1 << 22)


def sentences(count: int, seed: int) -> bytes:
    rng = random.Random(seed)
    words = [bytes(rng.choices(range(97, 123), k=rng.randint(2, 9))) for _ in range(300)]
    pick = random.Random(seed + count)
    return b" ".join(pick.choice(words) for _ in range(count))


TRAIN, VAL = sentences(6000, 1), sentences(600, 1)


def test_every_compressor_has_both_figures_and_says_on_how_much_text() -> None:
    found = compare_with_compressors(TRAIN, VAL, SMALL)
    assert set(found) == set(LIBRARIES)
    for figures in found.values():
        assert 0 < figures.primed < figures.alone < 8
        assert figures.prime_bytes == figures.train_bytes == len(TRAIN)
        assert figures.scored_bytes == figures.val_bytes == len(VAL)


def test_text_that_was_read_before_costs_next_to_nothing() -> None:
    found = compare_with_compressors(TRAIN, TRAIN[-3000:], SMALL)
    assert all(figures.primed < 0.6 for figures in found.values())


def test_noise_cannot_be_compressed_and_primes_nothing() -> None:
    noise = random.Random(0).randbytes(40_000)
    found = compare_with_compressors(noise[:20_000], noise[20_000:], SMALL)
    for figures in found.values():
        assert figures.alone >= 8
        assert figures.primed == pytest.approx(8, abs=0.5)


def test_a_large_corpus_is_cut_to_the_budget_and_the_figures_say_so() -> None:
    budget = CompressorBudget(prime_bytes=2000, val_bytes=1000, ppmd_memory_bytes=1 << 22)
    found = compare_with_compressors(TRAIN, VAL, budget)
    of_the_part = compare_with_compressors(TRAIN[-2000:], VAL[:1000], SMALL)
    assert found == {
        name: replace(figures, train_bytes=len(TRAIN), val_bytes=len(VAL))
        for name, figures in of_the_part.items()
    }
    assert (found["xz"].prime_bytes, found["xz"].scored_bytes) == (2000, 1000)


@pytest.mark.parametrize("threads", [1, 3])
def test_the_figures_do_not_depend_on_the_number_of_threads(threads: int) -> None:
    budget = CompressorBudget(threads=threads, ppmd_memory_bytes=1 << 22)
    assert compare_with_compressors(TRAIN, VAL, budget) == compare_with_compressors(
        TRAIN, VAL, SMALL
    )


def test_progress_counts_every_compression_once() -> None:
    seen: list[tuple[float, float]] = []

    def note(done: float = 0.0, total: float = 0.0, *, text: str = "", **numbers: float) -> None:
        seen.append((done, total))

    compare_with_compressors(TRAIN, VAL, SMALL, note)
    assert seen == [(i, 8) for i in range(1, 9)]


def test_a_file_can_be_read_back_with_what_it_was_primed_with() -> None:
    """The size that is reported is that of something a decoder can use."""
    import zstandard

    dictionary = zstandard.ZstdCompressionDict(TRAIN, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    data = zstandard.ZstdCompressor(level=22, dict_data=dictionary).compress(VAL)
    assert zstandard.ZstdDecompressor(dict_data=dictionary).decompress(data) == VAL
    assert zstd_size(VAL, prime=TRAIN) <= 1.05 * len(data)
    assert zstd_size(VAL) > zstd_size(VAL, prime=TRAIN)


@pytest.mark.parametrize("size", [xz_size, zstd_size, ppmd_size])
def test_one_byte_has_a_size(size: Any) -> None:
    assert 0 < size(b"a") < 100


def test_a_missing_library_is_an_error_that_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.import_module

    def without_pyppmd(name: str) -> Any:
        if name == "pyppmd":
            raise ImportError(name)
        return real(name)

    require()
    monkeypatch.setattr(importlib, "import_module", without_pyppmd)
    with pytest.raises(ValueError, match=r"ppmd need pyppmd.*pip install pyppmd"):
        require()
    with pytest.raises(ValueError, match="pip install pyppmd"):
        compare_with_compressors(TRAIN, VAL)


@pytest.mark.parametrize(("train", "val"), [(b"", b"text"), (b"text", b"")])
def test_an_empty_side_is_refused(train: bytes, val: bytes) -> None:
    with pytest.raises(ValueError, match="text on both sides"):
        compare_with_compressors(train, val)


@pytest.mark.parametrize("wrong", [{"prime_bytes": 0}, {"threads": 0}, {"ppmd_memory_bytes": 10}])
def test_an_impossible_budget_cannot_be_written(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        CompressorBudget(**wrong)
