"""C++ is compiled once and kept under the hash of what it is made of; failures are said."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from fairway.runtime import native

SOURCE = 'extern "C" int answer() { return 42; }'


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of sources and a cache of its own."""
    if not any(map(shutil.which, native.COMPILERS)):
        pytest.skip("no C++ compiler here")
    (tmp_path / "answer.cpp").write_text(SOURCE)
    monkeypatch.setattr(native, "SOURCES", tmp_path)
    monkeypatch.setattr(native, "_folders", lambda: [tmp_path / "cache"])
    native._load.cache_clear()
    yield tmp_path
    native._load.cache_clear()


def test_a_source_is_compiled_once_and_again_when_it_changes(place: Path) -> None:
    for text, answer, files in (
        (SOURCE, 42, 1),
        (SOURCE, 42, 1),
        (SOURCE.replace("4", "5"), 52, 2),
    ):
        (place / "answer.cpp").write_text(text)
        native._load.cache_clear()
        loaded = native.library("answer")
        assert loaded is not None
        assert loaded.answer() == answer
        assert len(list((place / "cache").iterdir())) == files
    assert native.explain("answer") == "answer: compiled C++"


def test_what_does_not_compile_is_said_and_leaves_nothing(place: Path) -> None:
    (place / "answer.cpp").write_text("nonsense")
    assert native.library("answer") is None
    assert "failed on answer.cpp" in native.explain("answer")
    assert not list((place / "cache").iterdir())


def test_a_damaged_library_is_said(place: Path) -> None:
    file = native._compiled("answer", native.source_of("answer"), tuned=False)
    file.write_bytes(b"damaged")
    assert native.library("answer") is None
    assert str(file) in native.explain("answer")


def test_without_a_compiler_the_plain_form_is_taken(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native.shutil, "which", lambda name: None)
    assert native.library("answer") is None
    assert "no C++ compiler; install one of c++" in native.explain("answer")


def test_plain_forms_can_be_asked_for(place: Path) -> None:
    with native.switched_off():
        assert native.library("answer") is None
    assert native.library("answer") is not None
