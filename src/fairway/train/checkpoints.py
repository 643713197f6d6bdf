"""Checkpoints of a training: when one is written, beside the steps, and which one is read.

A copy of the state is taken between two steps; a thread writes it while training goes on. The one
before it is kept, so that a damaged file costs a minute and not the run. What a checkpoint holds is
in `train_state.py`.
"""

import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import torch

from fairway.runtime.distributed import Ranks
from fairway.runtime.identity import difference
from fairway.runtime.sharing import share_tensors
from fairway.runtime.strict_json import Json
from fairway.runtime.tensor_file import TensorFile
from fairway.train.train_state import Checkpoint, read_train_state, save_checkpoint

CHECKPOINT, PREVIOUS = "checkpoint.safetensors", "checkpoint.previous.safetensors"
LARGEST_SHARE = 0.01  # of the training thread's time that copying may take
Say = Callable[[str], object]


def _say(text: str) -> None:
    print(text, file=sys.stderr)


class Checkpoints:
    """Writes the checkpoints of one training; use as a context manager.

    every_seconds  at least so long between two, longer where copying one takes long
    identity       what the training is made with; whoever reads a checkpoint compares it
    say            told about what went wrong
    copy_seconds   of the training thread, over all copies
    """

    def __init__(
        self,
        folder: Path,
        identity: Json,
        *,
        every_seconds: float = 60.0,
        ranks: Ranks | None = None,
        say: Say = _say,
        now: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.folder, self.identity, self.every_seconds = folder, identity, every_seconds
        self.ranks, self.say, self.now = ranks or Ranks(), say, now
        self.count, self.copy_seconds, self.last_copy_seconds = 0, 0.0, 0.0
        self.saved_at = now()
        self._writer: threading.Thread | None = None
        self._error: OSError | ValueError | None = None
        self._newest_is_good = True

    def __enter__(self) -> "Checkpoints":
        self.saved_at = self.now()
        return self

    def __exit__(self, *_: object) -> None:
        self._wait()

    def due(self) -> bool:
        """Whether it is time, by the clock of rank 0; all ranks ask together."""
        wait = max(self.every_seconds, self.last_copy_seconds / LARGEST_SHARE)
        busy = self._writer is not None and self._writer.is_alive()
        due = torch.tensor(not busy and self.now() - self.saved_at >= wait, dtype=torch.float64)
        return bool(self.ranks.broadcast(due))

    def save_beside(self, copy: Callable[[], Checkpoint]) -> None:
        """Take the copy now, write it meanwhile. A full disk is told and does not end the run."""
        began = self.now()
        self._wait()
        checkpoint = copy()
        self.saved_at = self.now()
        self.last_copy_seconds = self.saved_at - began
        self.copy_seconds += self.last_copy_seconds
        self.count += 1
        if self.ranks.is_main:
            self._writer = threading.Thread(target=self._write, args=(checkpoint,))
            self._writer.start()

    def save(self, copy: Callable[[], Checkpoint]) -> None:
        """Take the copy and return once it is written. Raises OSError."""
        self._wait()
        checkpoint = copy()
        if self.ranks.is_main:
            self._put(checkpoint)
        self.saved_at = self.now()

    def newest(self) -> Checkpoint | None:
        """What rank 0 finds in the folder, on every rank; None where there is nothing.

        A damaged file is told, and the one before it is taken. Raises ValueError where both are
        damaged, or where one is of another training.
        """
        found = share_tensors(self.ranks, self._read)
        return None if found is None else Checkpoint(tensors=found.tensors, numbers=found.facts)

    def _read(self) -> TensorFile | None:
        newest, previous = self.folder / CHECKPOINT, self.folder / PREVIOUS
        present = [path for path in (newest, previous) if path.exists()]
        for path in present:
            try:
                found = read_train_state(path)
            except ValueError as error:
                if path == present[-1]:
                    raise
                self.say(f"{error}; going on from the one before it, {previous.name}")
                self._newest_is_good = False
                continue
            if not newest.exists():
                self.say(f"there is no {newest}; going on from the one before it, {path.name}")
            require_same(found.numbers.get("identity"), self.identity, path)
            return TensorFile(dict(found.tensors), dict(found.numbers))
        return None

    def _write(self, checkpoint: Checkpoint) -> None:
        try:
            self._put(checkpoint)
        except (OSError, ValueError) as error:  # a full disk, a folder that was removed
            self._error = error

    def _put(self, checkpoint: Checkpoint) -> None:
        numbers = {**checkpoint.numbers, "identity": self.identity}
        waiting = self.folder / f".{CHECKPOINT}.new"
        save_checkpoint(waiting, Checkpoint(tensors=checkpoint.tensors, numbers=numbers))
        if self._newest_is_good and (self.folder / CHECKPOINT).exists():
            (self.folder / CHECKPOINT).replace(self.folder / PREVIOUS)
        waiting.replace(self.folder / CHECKPOINT)
        self._newest_is_good = True

    def _wait(self) -> None:
        """Until the writer is done; what it met is told."""
        if self._writer is not None:
            self._writer.join()
            self._writer = None
        if self._error is not None:
            self.say(f"no checkpoint was written: {self._error}")
            self._error = None


def require_same(made: Json, now: Json, path: Path) -> None:
    """ValueError that names what `path` was made with, where that is something else."""
    found = difference(made, now)
    if found is not None:
        raise ValueError(
            f"{path} was made with another run's settings ({found}); go on with those it was "
            f"started with, or start anew with --overwrite, which moves the old files away"
        )
