"""The text of the demo: the documentation that comes with every Python."""

import shutil
from pathlib import Path

from fairway.prepare import prepare_documents
from fairway.text import builtin_documents, split_documents
from fairway.tokens.shards import DataFolder


def prepare_builtin(out: Path, vocab_size: int) -> DataFolder:
    """The built-in text as a data folder; made anew, since it depends on the interpreter."""
    shutil.rmtree(out, ignore_errors=True)
    train, val = split_documents(builtin_documents())
    prepare_documents(out, train, val, vocab_size=vocab_size, source="CPython's own documentation")
    return DataFolder(out)
