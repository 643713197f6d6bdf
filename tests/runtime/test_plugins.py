import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fairway.runtime import plugins
from fairway.runtime.plugins import (
    Pluggable,
    check_recorded,
    describe_plugin,
    load_plugin,
    plugin_arguments,
    plugin_class,
)

SOURCE = "from fairway.runtime.plugins import Pluggable\n\n\nclass Mine(Pluggable):\n    pass\n"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A plug-in in a file of its own, forgotten afterwards."""
    monkeypatch.setattr(plugins, "_loaded", {})
    monkeypatch.setattr(plugins, "_given", {})
    monkeypatch.setattr(sys, "path", [*sys.path])
    path = tmp_path / "brought_along.py"
    path.write_text(SOURCE)
    yield path
    sys.modules.pop("brought_along", None)


def test_a_class_is_known_by_its_full_name_once_it_was_named(file: Path) -> None:
    with pytest.raises(ValueError, match="--plugin brought_along:Mine"):
        plugin_class("brought_along:Mine", Pluggable)
    found = load_plugin(f"{file}:Mine")
    assert plugin_class("brought_along:Mine", Pluggable) is found
    assert load_plugin("brought_along:Mine") is found


def test_another_process_can_be_told_to_load_the_same(file: Path) -> None:
    assert plugin_arguments() == []
    load_plugin(f"{file}:Mine")
    assert plugin_arguments() == ["--plugin", f"{file}:Mine"]


def test_a_plug_in_whose_source_changed_is_noticed(file: Path) -> None:
    recorded = describe_plugin(load_plugin(f"{file}:Mine"))
    assert check_recorded(recorded) is None
    file.write_text(SOURCE + "# changed\n")
    difference = check_recorded(recorded) or ""
    assert "brought_along:Mine" in difference
    assert recorded.sha256[:12] in difference


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("nowhere/file.py:Mine", "no file"),
        ("no_such_package:Mine", "cannot import"),
        ("json:Mine", "has no 'Mine'"),
        ("unregistered", "package.module:Name"),
    ],
)
def test_what_is_missing_is_named(spec: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_plugin(spec)


def test_two_files_of_one_name_are_told_apart(file: Path, tmp_path: Path) -> None:
    load_plugin(f"{file}:Mine")
    other = tmp_path / "other" / file.name
    other.parent.mkdir()
    other.write_text(SOURCE)
    with pytest.raises(ValueError, match="rename the file"):
        load_plugin(f"{other}:Mine")
