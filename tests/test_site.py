"""The site builds without a warning, and its own parts say what they are to say."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from fairway.cli import COMMANDS
from fairway.cli.signatures import command_name

ROOT = Path(__file__).parents[1]
SITE = ROOT / "docs" / "site"


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs")
    pytest.importorskip("mkdocstrings")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path / "site"],
        cwd=ROOT, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "site" / "commands" / "index.html").read_text()
    assert all(f"fairway {command_name(command)}" in page for command in COMMANDS)
    assert "bits_per_byte" in (tmp_path / "site" / "api" / "index.html").read_text()
    outside = [
        f"{file}: {word}"
        for file in (tmp_path / "site").rglob("*.html")
        for word in ("https://fonts.", "https://unpkg.", "https://cdn.")
        if word in file.read_text()
    ]
    assert outside == []  # nothing is loaded from elsewhere


def test_names_in_docstrings_become_a_list() -> None:
    pytest.importorskip("griffe")
    listed = runpy.run_path(str(SITE / "docstrings.py"))["listed"]
    text = "What.\n\nsource  a file\n        of ours\nseed, id  any\n\nRaises."
    assert listed(text) == "What.\n\n- `source`: a file of ours\n- `seed, id`: any\n\nRaises."
