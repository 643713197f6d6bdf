"""Packages that not everybody needs: an error of one line says how to get a missing one."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def extra(name: str, purpose: str) -> Iterator[None]:
    """Around imports that an extra of ours brings.

    name     of the extra, as in `pip install 'fairway[name]'`
    purpose  what needs it, the beginning of a sentence: "a report"

    >>> with extra("report", "a report"):
    ...     import a_module_that_is_not_there
    Traceback (most recent call last):
    ...
    ValueError: a report needs `pip install 'fairway[report]'` (No module named \
'a_module_that_is_not_there')
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "fairway":
            raise  # a fault of ours, which no package mends
        raise ValueError(f"{purpose} needs `pip install 'fairway[{name}]'` ({error})") from error
