"""Packages that not everybody needs: an error of one line says how to get a missing one."""

from collections.abc import Iterator
from contextlib import contextmanager


class MissingExtra(ValueError):
    """What was asked for needs a package that is not installed; the message says how to get it."""


@contextmanager
def extra(name: str, purpose: str) -> Iterator[None]:
    """Around imports that an extra of ours brings.

    name     of the extra, as in `pip install 'fairway[name]'`
    purpose  what needs it, the beginning of a sentence: "a report"

    >>> try:
    ...     with extra("report", "a report"):
    ...         import no_such_module
    ... except ValueError as error:
    ...     print(error)
    a report needs `pip install 'fairway[report]'` (No module named 'no_such_module')
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "fairway":
            raise  # a fault of ours, which no package mends
        raise MissingExtra(f"{purpose} needs `pip install 'fairway[{name}]'` ({error})") from error
