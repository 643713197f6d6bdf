"""What the site has beyond the pages in docs/: the project's own documents, examples, and a
reference of commands, which is made from their parsers.

Links that leave docs/ lead to those pages instead.
"""

import io
import os
import re
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from fairway.cli import COMMANDS
from fairway.cli.parsing import ask
from fairway.cli.signatures import command_name

ROOT = Path(__file__).parents[2]
DOCUMENTS = {
    "README.md": "index.md",
    "CHANGELOG.md": "changes.md",
    "CONTRIBUTING.md": "contributing.md",
}
FENCES = {".py": "python", ".sh": "sh", ".sbatch": "sh", ".yaml": "yaml"}
WIDTH = "78"  # columns of a help text


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for source, page in DOCUMENTS.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text()))
    files.append(File.generated(config, "commands.md", content=commands()))
    for path in examples():
        name = f"{path.relative_to(ROOT)}.md"
        files.append(File.generated(config, name, content=example(path)))
    listed = "".join(f"- [{p.relative_to(ROOT)}]({p.relative_to(ROOT)}.md)\n" for p in examples())
    files.append(File.generated(config, "examples.md", content=f"# Examples\n\n{listed}"))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links as they are in the repository, to where the same thing is on the site."""

    def moved(match: re.Match[str]) -> str:
        target, anchor = match[1], match[2] or ""
        found = _on_site(target, page)
        return match[0] if found is None else f"]({found}{anchor})"

    return re.sub(r"\]\(([^)#:\s]+)(#[^)\s]*)?\)", moved, markdown)


def _on_site(target: str, page: Page) -> str | None:
    """Where a link that is right in the repository leads on the site; None: where it says."""
    source = {site: name for name, site in DOCUMENTS.items()}.get(page.file.src_uri)
    folder = ROOT if source else (ROOT / "docs" / page.file.src_uri).parent
    place = Path(os.path.normpath(folder / target))
    if not place.exists():
        return None
    name = str(place.relative_to(ROOT))
    if name in DOCUMENTS:
        name = DOCUMENTS[name]
    elif place.is_dir():
        name = "examples.md"
    elif name.startswith("examples/"):
        name += "" if place.suffix == ".ipynb" else ".md"
    elif name.startswith("docs/"):
        name = name.removeprefix("docs/")
    return os.path.relpath(name, Path(page.file.src_uri).parent)


def examples() -> list[Path]:
    return sorted(p for p in (ROOT / "examples").rglob("*.*") if p.suffix in FENCES)


def example(path: Path) -> str:
    return f"# {path.name}\n\n```{FENCES[path.suffix]}\n{path.read_text()}```\n"


def commands() -> str:
    """Every command as its own parser tells of it."""
    parts = [
        "# Commands\n",
        "As `fairway COMMAND --help` shows them. `fairway run RECIPE --help-all` and `fairway "
        "score MODEL --help-all` list the fields of recipes and evaluations too, which are "
        "options as well. Exit status: 0 done; 1 done, and the answer is no; 2 the user can mend "
        "it; 128 and the signal's number where one stopped it.\n",
    ]
    os.environ["COLUMNS"] = WIDTH
    for command in COMMANDS:
        name = command_name(command)
        parts.append(f"## fairway {name}\n\n```text\n{help_text([name, '--help'])}```\n")
    return "\n".join(parts)


def help_text(words: list[str]) -> str:
    shown = _Utf8()
    with redirect_stdout(shown), suppress(SystemExit):
        ask(COMMANDS, words)
    return shown.getvalue()


class _Utf8(io.StringIO):
    encoding: Any = "utf-8"
