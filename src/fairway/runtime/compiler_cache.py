"""Where `torch.compile` keeps what it compiled, and another place where it cannot.

PyTorch wants that folder as soon as an optimizer is made, compiled or not: where it cannot be made,
every training would end in a traceback of PyTorch's.
"""

import getpass
import os
import re
import tempfile
from pathlib import Path

VARIABLE = "TORCHINDUCTOR_CACHE_DIR"
OURS = Path("~/.cache/fairway/compiler")  # where PyTorch's own place is of no use
PROBE_BYTES = 1 << 16


def cache_folder() -> Path:
    """The folder, as PyTorch chooses it; importing what could be asked takes a second."""
    named = os.environ.get(VARIABLE)
    if named is not None:
        return Path(named).absolute()
    try:
        user = getpass.getuser()
    except (KeyError, ModuleNotFoundError, OSError):  # a number without a name, as in containers
        user = f"uid_{os.getuid()}"
    name = re.sub(r'[\\/:*?"<>|]', "_", user)
    return Path(tempfile.gettempdir()) / f"torchinductor_{name}"


def problem(folder: Path) -> str:
    """Why files cannot be written there; "" where they can."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(PROBE_BYTES))
    except OSError as error:
        return error.strerror or str(error)
    return ""


def make_usable() -> str:
    """See that PyTorch has a folder for what it compiles; in words where it is not its own.

    Raises ValueError where there is none: nothing that learns could run.
    """
    folder, other = cache_folder(), OURS.expanduser()
    found = problem(folder)
    if not found:
        return ""
    said = f"{folder}, where PyTorch keeps what it compiles, cannot be written to ({found})"
    mend = f"make room there, or name another folder in {VARIABLE}"
    if not (beside := problem(other)):
        os.environ[VARIABLE] = str(other)
        return f"{said}: {other} is used instead; {mend}"
    if folder.is_dir():  # enough for all that is not compiled
        return f"{said}; {mend}"
    raise ValueError(f"{said}, nor can {other} ({beside}); {mend}")
