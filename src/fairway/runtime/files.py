"""Writing files so that a full disk or a power cut never leaves half of one."""

import os
from pathlib import Path


def atomic_write(path: Path, data: bytes) -> None:
    """Write `data` beside `path`, then rename: whoever looks sees the old file or the new one.

    Raises OSError (a full disk, say) with the old file untouched and the partial one removed.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
