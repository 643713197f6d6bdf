"""Docstrings of this project as a list of what they name: `name  what it is` becomes an item."""

import re
from typing import Any

import griffe

NAMED = re.compile(r"^(?P<names>\*?[a-z_][\w, ]*?)  +(?P<text>\S.*)$")


class NamesAsList(griffe.Extension):
    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = listed(obj.docstring.value)


def listed(text: str) -> str:
    """
    >>> print(listed("What.\\n\\nsource  a file\\n        of ours\\nseed    any\\n\\nRaises."))
    What.
    <BLANKLINE>
    - `source`: a file of ours
    - `seed`: any
    <BLANKLINE>
    Raises.
    """
    lines: list[str] = []
    for line in text.splitlines():
        found = NAMED.match(line)
        if found:
            lines.append(f"- `{found['names'].strip()}`: {found['text']}")
        elif line.startswith("   ") and lines and lines[-1].startswith("- `"):
            lines[-1] += f" {line.strip()}"
        else:
            lines.append(line)
    return "\n".join(lines)
