"""One search by several processes, through one file: Optuna's journal.

Each process takes part by naming the file. One that is killed loses the trial it was in; whatever
the others found, and it had found before, stays.
"""

import contextlib
import fcntl
import json
import os
from pathlib import Path

import optuna
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock, JournalStorage

from fairway.runtime.files import require_writable
from fairway.runtime.strict_json import JsonObject

STUDY = "fairway tune"
MOST_BYTES = 1 << 28
DONE = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)
Identity = JsonObject  # JSON: the model, the text and the settings that a search is about


class _Lock(JournalFileOpenLock):
    """Held by the system for as long as its process lives, and no longer.

    Whoever has it removes what a process that was killed had written of a line.
    """

    def __init__(self, journal: Path) -> None:
        self.journal, self.file = journal, journal.with_name(f"{journal.name}.lock")
        self.handle = -1

    def acquire(self) -> bool:
        self.handle = os.open(self.file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        fcntl.flock(self.handle, fcntl.LOCK_EX)
        _cut_torn_line(self.journal)
        return True

    def release(self) -> None:
        os.close(self.handle)


def _cut_torn_line(file: Path) -> None:
    with contextlib.suppress(FileNotFoundError), file.open("r+b") as journal:
        size = place = journal.seek(0, os.SEEK_END)
        held = b""
        while place and b"\n" not in held:
            place = max(0, place - 65536)
            journal.seek(place)
            held = journal.read(65536)
        end = place + held.rfind(b"\n") + 1
        if end < size:
            journal.truncate(end)


def open_study(file: Path, identity: Identity, pruner: optuna.pruners.BasePruner) -> "optuna.Study":
    """The search in `file`, begun where there is none.

    Raises ValueError where the file is no journal, or of another model, text or settings.
    """
    require_writable(file)
    if file.is_file() and file.stat().st_size > MOST_BYTES:
        raise ValueError(f"{file} is larger than any journal of a search; name another file")
    identity = json.loads(json.dumps(identity))
    with file.open("ab") as first:  # one process at a time begins or compares
        fcntl.flock(first, fcntl.LOCK_EX)
        study = _open(file, pruner)
        attributes = study.user_attrs
        for name, value in identity.items():
            if name not in attributes:
                study.set_user_attr(name, value)
        different = [name for name, value in identity.items() if study.user_attrs[name] != value]
    if different:
        raise ValueError(
            f"{file} is the search of another {', another '.join(different)}; name another file, "
            f"or give what it was begun with"
        )
    return study


def _open(file: Path, pruner: optuna.pruners.BasePruner) -> "optuna.Study":
    try:
        _require_journal(file)
        storage = JournalStorage(JournalFileBackend(str(file), lock_obj=_Lock(file)))
        return optuna.create_study(
            study_name=STUDY,
            storage=storage,
            load_if_exists=True,
            # Trials that others are at count as poor ones, so that no two try the same.
            sampler=optuna.samplers.TPESampler(n_startup_trials=6, constant_liar=True),
            pruner=pruner,
        )
    except OSError:
        raise
    except Exception as error:  # whatever Optuna makes of lines that it did not write
        raise ValueError(
            f"{file} is no journal of a search, or damaged ({type(error).__name__}: "
            f"{' '.join(str(error).split())[:100]}); name another file"
        ) from error


def _require_journal(file: Path) -> None:
    """ValueError unless every whole line is an object; Optuna would fail later, in other words."""
    with file.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if line.endswith(b"\n") and not isinstance(json.loads(line), dict):
                raise ValueError(f"line {number} is no object")
            if not line.endswith(b"\n") and number == 1:
                raise ValueError("it has no whole line")


def num_done(study: optuna.Study) -> int:
    """Trials that ended by themselves, of all processes."""
    return len(study.get_trials(deepcopy=False, states=DONE))
