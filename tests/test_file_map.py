"""What the documents say of the source tree is so: the file map, paths, names and commands."""

import re
import runpy
from pathlib import Path

import pytest

from fairway.cli import COMMANDS
from fairway.cli.signatures import command_name

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "fairway"
INVENTED = {  # files of the reader's
    "path/file.py", "my_learner.py", "my_rounding.py", "my_optimizer.py", "my_recipe.py",
    "my_probes.py",
    "train_gpt.py",  # which runs write
}  # fmt: skip
NAMES = {command_name(command) for command in COMMANDS}
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_the_file_map_is_the_source_tree() -> None:
    script = runpy.run_path(str(ROOT / "docs" / "file_map.py"))
    page = (ROOT / "docs" / "design.md").read_text()
    assert page == script["with_map"](page), "run `make file-map`"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_path_a_page_names_exists(page: Path) -> None:
    named = re.findall(r"`([\w./-]+\.py)`", page.read_text())
    assert [path for path in named if path not in INVENTED and not _exists(path)] == []


def _exists(path: str) -> bool:
    """Below the repository or the package; a bare name anywhere in the package or its tests."""
    if (ROOT / path).is_file() or (PACKAGE / path).is_file():
        return True
    folders = (PACKAGE, ROOT / "tests" / "audit")
    return "/" not in path and any(any(folder.rglob(path)) for folder in folders)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#][^)]*)\)", page.read_text()):
        if target.startswith("http"):
            continue
        file, _, anchor = target.partition("#")
        linked = page.parent / file
        assert linked.exists(), target
        if anchor:
            assert anchor in _anchors(linked), target


def _anchors(page: Path) -> set[str]:
    """The names under which a page's headings can be linked to."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_a_page_shows_exists(page: Path) -> None:
    shown = re.findall(r"(?:\$ |`)(?:\.venv/bin/)?fairway ([a-z][\w-]*)", page.read_text())
    assert set(shown) <= NAMES


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_script_and_make_target_a_page_shows_exists(page: Path) -> None:
    text, targets = page.read_text(), (ROOT / "Makefile").read_text()
    scripts = re.findall(r"^\$ python (\S+)", text, re.MULTILINE)
    assert [script for script in scripts if not (ROOT / script).is_file()] == []
    named = re.findall(r"(?:^\$ |`)make ([\w-]+)", text, re.MULTILINE)
    assert [name for name in named if f"\n{name}:" not in targets] == []


def test_the_readme_names_every_command() -> None:
    text = (ROOT / "README.md").read_text()
    named = {name for name in NAMES if f"fairway {name}" in text or f"`{name}`" in text}
    assert named == NAMES


def test_the_stages_in_the_design_are_in_the_order_of_imports() -> None:
    stages = runpy.run_path(str(ROOT / "tests" / "test_import_direction.py"))["STAGES"]
    (chain,) = re.findall(r"^runtime > [^`]*", (ROOT / "docs" / "design.md").read_text(), re.M)
    assert chain.split() == " > ".join(s for s in stages if s in chain.split()).split()
    assert set(stages) - set(chain.split()) <= {"submission", "__main__"}


@pytest.mark.parametrize(
    ("name", "path"),
    re.findall(
        r"`([\w.]+)`(?: in|,| \() ?`(\w[\w/]*\.py)`",
        (ROOT / "docs" / "design.md").read_text(),
    ),
)
def test_what_the_design_says_is_in_a_file_is_there(name: str, path: str) -> None:
    source, last = (PACKAGE / path).read_text(), name.split(".")[-1]
    assert re.search(rf"\b(?:class|def) {last}\b|^ *{last}\b *[:=]", source, re.MULTILINE)
