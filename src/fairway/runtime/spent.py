"""Seconds already spent of a budget, written down so often that dying does not give them back.

A run that is killed and started again must not have its budget anew. A thread writes the seconds
that were spent into a small file ten times a second, in place; whoever goes on reads them and adds
the tenth that may be missing.
"""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fairway.runtime.files import atomic_write

EVERY_SECONDS = 0.1
_WIDTH = 24  # of the number in the file: always the same, so that it is overwritten whole


class Spent:
    """Seconds of one budget over all starts of a run.

    path  where they are kept; None keeps them in memory only
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.before = 0.0 if path is None else read_spent(path)
        self._began: float | None = None

    @property
    def seconds(self) -> float:
        """Of earlier starts and of this one, while it is running."""
        return self.before + (0.0 if self._began is None else time.perf_counter() - self._began)

    @contextmanager
    def running(self, at_least: float = 0.0) -> Iterator["Spent"]:
        """Time passes in here and nowhere else.

        at_least  what is known from elsewhere to have been spent
        """
        self.before = max(self.before, at_least)
        self._began = time.perf_counter()
        done = threading.Event()
        thread = threading.Thread(target=self._keep_writing, args=(done,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            done.set()
            thread.join()
            self.before, self._began = self.seconds, None
            self._write()

    def _keep_writing(self, done: threading.Event) -> None:
        self._write()
        while not done.wait(EVERY_SECONDS):
            self._write()

    def _write(self) -> None:
        if self.path is None:
            return
        text = f"{self.seconds:.3f}".rjust(_WIDTH - 1) + "\n"
        try:
            if not self.path.exists():  # whoever dies meanwhile leaves no empty file
                atomic_write(self.path, text.encode())
                return
            handle = os.open(self.path, os.O_WRONLY)
            try:
                os.pwrite(handle, text.encode(), 0)
            finally:
                os.close(handle)
        except (OSError, ValueError):
            pass  # a full disk must not end the run; the file was given its size at the beginning


def read_spent(path: Path) -> float:
    """Seconds that the file accounts for, what may have passed since its last line included.

    Raises ValueError where it is no such file: guessing would give time away.
    """
    if not path.exists():
        return 0.0
    text = path.read_text(errors="replace")
    try:
        seconds = float(text)
        if not 0.0 <= seconds < 1e9:
            raise ValueError(text)
    except ValueError:
        raise ValueError(
            f"{path} does not say how many seconds were spent but {text[:40]!r}; start the run "
            f"anew with --overwrite"
        ) from None
    return seconds + EVERY_SECONDS
