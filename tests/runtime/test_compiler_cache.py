"""Where PyTorch keeps what it compiles, and what becomes of a run where it cannot."""

import os
import tempfile
from pathlib import Path

import pytest

from fairway.runtime import compiler_cache
from fairway.runtime.compiler_cache import VARIABLE, cache_folder, make_usable, problem
from fairway.runtime.setup import runtime_for


@pytest.fixture
def ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(compiler_cache, "OURS", tmp_path / "home" / "compiler")
    return tmp_path / "home" / "compiler"


@pytest.fixture
def no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file is where the folder should be: nobody can write into it, not even root."""
    (tmp_path / "cache").touch()
    monkeypatch.setenv(VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_the_folder_is_the_one_that_pytorch_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    monkeypatch.delenv(VARIABLE, raising=False)
    chosen = str(cache_folder())
    assert chosen == cache_dir()
    monkeypatch.setenv(VARIABLE, "named")
    assert str(cache_folder()) == os.path.abspath("named")


def test_a_folder_of_use_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "new"))
    assert make_usable() == ""
    assert os.environ[VARIABLE] == str(tmp_path / "new")
    assert not list((tmp_path / "new").iterdir())


def test_another_folder_is_taken_and_the_mend_told(ours: Path, no_folder: Path) -> None:
    with runtime_for(device="cpu", quiet=True) as runtime:
        said = "".join(runtime.log._unwritten)
    assert f"{no_folder}, where PyTorch keeps what it compiles, cannot be written to" in said
    assert f"{ours} is used instead" in said
    assert f"another folder in {VARIABLE}" in said
    assert os.environ[VARIABLE] == str(ours)


def test_without_any_folder_nothing_begins(ours: Path, no_folder: Path) -> None:
    ours.parent.parent.mkdir(exist_ok=True)
    ours.parent.touch()
    with pytest.raises(ValueError, match=f"{no_folder}.*nor can {ours}.*{VARIABLE}"):
        make_usable()


def test_a_full_disk_is_told_and_hinders_only_what_compiles(
    ours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(**_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setenv(VARIABLE, str(tmp_path))
    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    assert problem(tmp_path) == "No space left on device"
    assert make_usable().startswith(f"{tmp_path}, where PyTorch keeps what it compiles")
    assert os.environ[VARIABLE] == str(tmp_path)
