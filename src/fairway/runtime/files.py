"""Files that are whole or not there: writing, locking, hashing."""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def atomic_write(path: Path, data: bytes) -> None:
    """Write `data` beside `path`, then rename: whoever looks sees the old file or the new one.

    Raises OSError (a full disk, say) with the old file untouched and the partial one removed, and
    ValueError where `path` is a device, a pipe or a folder: renaming would replace it by a file.
    """
    with replacing(Path(path)) as partial, partial.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A place beside `path` to write to; renamed to it at the end, removed after any error."""
    require_writable(path)
    path = path.resolve()  # a link stays a link: what it points to is replaced
    require_writable(path)
    partial = path.with_name(f".{path.name[:200]}.{os.getpid()}.partial")
    try:
        yield partial
        partial.replace(path)
        _sync_folder(path.parent)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A new folder beside `path` to write into; it takes the place of `path` at the end, and is
    removed after any error, with what was there before as it was."""
    path = path.resolve()
    if path.exists() and not path.is_dir():
        raise ValueError(f"{path} is no folder; name another place")
    if not path.parent.is_dir():
        raise ValueError(f"there is no folder {path.parent} to write {path.name} into")
    partial, old = (
        path.with_name(f".{path.name[:200]}.{os.getpid()}.{kind}") for kind in ("partial", "old")
    )
    partial.mkdir()
    try:
        yield partial
        if path.exists():
            path.rename(old)
        partial.rename(path)
        _sync_folder(path.parent)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        if old.exists() and not path.exists():
            old.rename(path)
        raise
    shutil.rmtree(old, ignore_errors=True)


def require_writable(path: Path) -> None:
    """ValueError where no file can stand at `path`; nothing is touched."""
    if path.exists() and not path.is_file():
        kind = "a folder" if path.is_dir() else "a device or a pipe"
        raise ValueError(f"{path} is {kind}, which a file would replace; name a file")
    if not path.parent.is_dir():
        raise ValueError(f"there is no folder {path.parent} to write {path.name} into")


def require_other(source: Path, target: Path) -> None:
    """ValueError where both are the same file, which writing would destroy."""
    if source.exists() and target.exists() and source.samefile(target):
        raise ValueError(f"{target} is the file that is read; name another one to write")


@contextmanager
def locked(path: Path, owner: str) -> Iterator[None]:
    """Hold the lock file at `path`, which then says who; ValueError names who holds it already.

    The lock ends with the process, however that ends; the file stays.
    """
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read(200).strip() or "another process"
            raise ValueError(
                f"{path.parent} is in use by {holder}; wait for it, or choose another folder"
            ) from None
        file.truncate(0)
        file.write(f"{owner}\n")
        file.flush()
        yield


def read_file(path: Path, most: int) -> bytes:
    """The content of a regular file, of at most so many bytes.

    Raises ValueError for a folder, a device, a pipe, or a larger file, before anything is read.
    """
    if not path.is_file():
        raise ValueError(f"no file at {path}")
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise ValueError(f"{path} has {size:,} bytes; a file of its kind has at most {most:,}")
        return file.read(size)


def file_sha256(path: Path) -> str:
    """In hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync_folder(folder: Path) -> None:
    """Make a rename outlast a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError:
        pass  # not every file system can; the file itself is safe
    finally:
        os.close(handle)
