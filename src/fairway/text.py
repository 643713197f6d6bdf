"""Text as documents of bytes: where the built-in text comes from, how a set of documents is split.

Nothing here knows of tokens. Reading a user's files is `prepare`'s business.
"""

import ast
import hashlib
import random
import sysconfig
from collections.abc import Iterable, Sequence
from pathlib import Path

# Folders of the standard library whose docstrings are not prose about the library.
NOT_PROSE = {"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3", "ensurepip"}


def builtin_documents() -> list[bytes]:
    """English prose that every CPython carries, about 2 MB, one document per topic or module.

    The topics of `help()` and all docstrings of the standard library, which is parsed and never
    imported. The same interpreter gives the same list; exact duplicates appear once.
    """
    from pydoc_data.topics import topics

    texts = [topics[name] for name in sorted(topics)]
    root = Path(sysconfig.get_path("stdlib"))
    for file in sorted(root.rglob("*.py")):
        if not NOT_PROSE.isdisjoint(file.relative_to(root).parts):
            continue
        try:
            tree = ast.parse(file.read_bytes())
        except (SyntaxError, ValueError):
            continue  # templates and samples that are not Python
        texts.append("\n\n".join(_docstrings(tree)))
    documents = (text.encode("utf-8", "surrogateescape") for text in texts if text.strip())
    return list(dict.fromkeys(documents))


def _docstrings(tree: ast.Module) -> list[str]:
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = (node for node in ast.walk(tree) if isinstance(node, kinds))
    return [text for node in nodes if (text := ast.get_docstring(node))]


def split_documents(
    documents: Sequence[bytes], val_fraction: float = 0.1, seed: int = 0
) -> tuple[list[bytes], list[bytes]]:
    """(train, validation): whole documents, shuffled by `seed`, until validation has its bytes.

    Raises ValueError when either side would be empty.
    """
    if not 0 < val_fraction < 1:
        raise ValueError(f"val_fraction={val_fraction} must lie between 0 and 1")
    order = list(documents)
    random.Random(seed).shuffle(order)
    wanted = val_fraction * sum(map(len, order))
    taken = 0
    val: list[bytes] = []
    while order and taken < wanted:
        val.append(order.pop())
        taken += len(val[-1])
    if not order or not val:
        raise ValueError(
            f"{len(documents)} documents cannot be split: training and validation need one each; "
            "give a validation source of its own with --val"
        )
    return order, val


def text_sha256(documents: Iterable[bytes]) -> str:
    """Hash of the documents joined by NUL, the form in which a text file holds them."""
    digest = hashlib.sha256()
    for index, document in enumerate(documents):
        digest.update(document if index == 0 else b"\0" + document)
    return digest.hexdigest()
