"""Write the file map at the end of design.md: every module, by the first thing it says of itself.

python docs/file_map.py
"""

import ast
import re
import runpy
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "design.md"
PACKAGE = ROOT / "src" / "fairway"
HEADING = "## File map\n"
STAGES: list[str] = runpy.run_path(str(ROOT / "tests" / "test_import_direction.py"))["STAGES"]


def file_map() -> str:
    """A Markdown table, in the order in which modules may import one another."""
    files = [file for file in PACKAGE.rglob("*.py") if file.read_text().strip()]
    rows = [
        _row(file) for file in sorted(files, key=_place) if file.parent != PACKAGE or _stage(file)
    ]
    return "\n".join(["| `src/fairway/` | |", "|---|---|", *rows]) + "\n"


def with_map(page: str) -> str:
    """The page with its last section renewed."""
    return f"{page.partition(HEADING)[0]}{HEADING}\n{file_map()}"


def _stage(file: Path) -> str:
    """Folder or module below the package; "" for the package itself."""
    name = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return "" if name == "__init__" else name


def _place(file: Path) -> tuple[int, str]:
    """Stages in order, and a folder before its files."""
    stage = _stage(file)
    rank = STAGES.index(stage) if stage in STAGES else len(STAGES)
    return rank, str(file.relative_to(PACKAGE)).replace("__init__.py", "")


def _row(file: Path) -> str:
    path, words = str(file.relative_to(PACKAGE)), _first_paragraph(file)
    if file.name == "__init__.py":
        return f"| **`{path.removesuffix('__init__.py')}`** | {words} |"
    return f"| `{path}` | {words} |"


def _first_paragraph(file: Path) -> str:
    docstring = ast.get_docstring(ast.parse(file.read_text()))
    if docstring is None:
        raise ValueError(f"{file} does not say what it is for: give it a docstring")
    return re.sub(r"\s+", " ", docstring.partition("\n\n")[0]).replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(with_map(PAGE.read_text()))
