"""Documents out of files that nobody vouches for.

What a file is, its first bytes say; its name only tells JSON lines from plain text, and is held
against the bytes where they disagree. Nothing that a file says of its own size is believed: text is
read in blocks, lines and documents have limits, and every refusal names the file, and the line.
"""

import io
import json
import lzma
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from fairway.prepare.unpack import XZ_MAGIC, XzReader
from fairway.runtime.limits import one_line

if TYPE_CHECKING:
    import pyarrow

BLOCK_BYTES = 1 << 20
MOST_LINE_BYTES = 64 << 20  # of JSON lines
MOST_DOCUMENT_BYTES = 1 << 30  # a document is held in memory, whole
MOST_PARQUET_BYTES = 16 << 30  # of a Parquet file inside .xz, which must be unpacked to be read
PARQUET_ROWS = 16  # decoded at a time
PARQUET_MAGIC = b"PAR1"
LOOK_BYTES = 4096  # of a file, to tell what it is
FOREIGN = {  # what begins like this is no text
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"BZh": "bzip2",
    b"PK\x03\x04": "a zip file",
    b"7z\xbc\xaf": "7-Zip",
    b"\x04\x22\x4d\x18": "lz4",
    b"\x7fELF": "a program",
    b"%PDF-": "PDF",
    b"\x89PNG": "a picture",
    b"\xff\xd8\xff": "a picture",
    b"SQLite format 3": "a database",
    b"\x93NUMPY": "a NumPy array",
    b"\x89HDF": "HDF5",
    b"ARROW1": "an Arrow file",
    b"ORC": "an ORC file",
    b"\x80\x02": "a pickle",
    b"\x80\x04": "a pickle",
    b"\x80\x05": "a pickle",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}
CONTROL = bytes(set(range(32)) - set(b"\0\t\n\v\f\r\x1b\b")) + b"\x7f"


class Position:
    """How far the reading of files has come, in their own bytes, packed or not.

    finished  bytes read before
    """

    def __init__(self, finished: int = 0) -> None:
        self.finished = finished
        self.current: IO[bytes] | None = None

    @property
    def num_bytes(self) -> int:
        return self.finished + (self.current.tell() if self.current is not None else 0)

    @contextmanager
    def reading(self, file: Path) -> Iterator[IO[bytes]]:
        with file.open("rb") as self.current:
            try:
                yield self.current
                self.finished += os.fstat(self.current.fileno()).st_size
            finally:
                self.current = None


def read_documents(sources: Sequence[Path], position: Position | None = None) -> Iterator[bytes]:
    """Documents of all sources in order, one at a time; blank ones are passed over.

    Plain text (documents separated by NUL), JSON lines and Parquet (field "text"), each also .xz;
    a folder stands for the files in it. Raises ValueError naming what cannot be read.
    """
    for file in source_files(sources):
        yield from read_file(file, position)


def source_files(sources: Sequence[Path]) -> list[Path]:
    """The files that sources stand for, in order; ValueError for what is neither file nor folder.

    Pipes and devices are refused, in a folder too: nothing can be read from them twice.
    """
    if not sources:
        raise ValueError("no source given; name a text, .jsonl or .parquet file, or a folder")
    files = []
    for source in map(Path, sources):
        if not _is_folder(source):
            files.append(source)
            continue
        inside = sorted(file for file in source.iterdir() if not _is_folder(file))
        if not inside:
            raise ValueError(f"{printable(source)} is an empty folder")
        files += inside
    return files


def _is_folder(path: Path) -> bool:
    """True for a folder and False for a file; ValueError for all else."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise ValueError(f"no such source: {printable(path)}") from None
    except OSError as error:  # a circle of links, no permission
        raise ValueError(f"{printable(path)} cannot be read: {error.strerror}") from error
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise ValueError(f"{printable(path)} is a pipe, socket or device; copy it to a file first")
    return stat.S_ISDIR(mode)


def printable(path: Path) -> str:
    """A name on one line, whatever bytes it is made of."""
    name = str(path)
    return name if name.isprintable() else ascii(name)


def read_file(file: Path, position: Position | None = None) -> Iterator[bytes]:
    """Documents of one file in order, without the blank ones."""
    try:
        with (position or Position()).reading(file) as raw:
            for document in _documents(file, raw):
                if len(document) > MOST_DOCUMENT_BYTES:
                    raise ValueError(_too_long(file))
                if document.strip():
                    yield document
    except (lzma.LZMAError, EOFError, OSError) as error:
        raise ValueError(f"{printable(file)} cannot be read: {one_line(error)}") from error


def _documents(file: Path, raw: IO[bytes]) -> Iterator[bytes]:
    packed = raw.read(len(XZ_MAGIC)) == XZ_MAGIC
    raw.seek(0)
    if file.suffix == ".xz" and not packed:
        raise ValueError(f"{printable(file)} cannot be read: it is no .xz file, despite its name")
    inner = Path(file.stem).suffix if file.suffix == ".xz" else file.suffix
    opened = io.BufferedReader(XzReader(raw), BLOCK_BYTES) if packed else raw
    first = opened.peek(LOOK_BYTES)[:LOOK_BYTES] if isinstance(opened, io.BufferedReader) else b""
    if first.startswith(PARQUET_MAGIC):
        yield from _parquet(opened, packed, file)
    elif inner == ".parquet":
        raise ValueError(f"{printable(file)} cannot be read: it is no Parquet, despite its name")
    else:
        _refuse_binary(first, file)
        kinds = _json_lines if inner in (".jsonl", ".ndjson") else _split_at_nul
        yield from kinds(opened, file)


def _refuse_binary(first: bytes, file: Path) -> None:
    """ValueError for what is no text, by how it begins."""
    known = next((kind for magic, kind in FOREIGN.items() if first.startswith(magic)), None)
    odd = len(first) - len(first.translate(None, CONTROL))
    if known is None and (20 * odd > len(first) or 4 * first.count(b"\0") > max(len(first), 64)):
        known = "binary data"
    if known is not None:
        raise ValueError(
            f"{printable(file)} is {known}, not text; sources are plain text (UTF-8), .jsonl and "
            f".parquet, and .xz of them"
        )


def _too_long(file: Path) -> str:
    return (
        f"{printable(file)} holds a document of more than {MOST_DOCUMENT_BYTES >> 20:,} MiB; "
        f"separate its documents by NUL bytes"
    )


def _split_at_nul(opened: IO[bytes], file: Path) -> Iterator[bytes]:
    held = bytearray()
    while block := opened.read(BLOCK_BYTES):
        held += block
        if b"\0" in block:
            *whole, rest = held.split(b"\0")
            yield from map(bytes, whole)
            held = bytearray(rest)
        if len(held) > MOST_DOCUMENT_BYTES:
            raise ValueError(_too_long(file))
    yield bytes(held)


def _json_lines(opened: IO[bytes], file: Path) -> Iterator[bytes]:
    number = 0
    while line := opened.readline(MOST_LINE_BYTES + 1):
        number += 1
        try:
            if len(line) > MOST_LINE_BYTES:
                raise ValueError(f"a line of more than {MOST_LINE_BYTES >> 20} MiB")
            if line.strip():
                yield _text_of(line, first=number == 1)
        except (ValueError, RecursionError) as error:
            raise ValueError(
                f'{printable(file)}, line {number}: expected an object with a string "text" '
                f"({error!s:.200})"
            ) from error


def _text_of(line: bytes, first: bool) -> bytes:
    """The field "text" of one line; ValueError, or RecursionError for what nests too deep."""
    found = json.loads(line.decode("utf-8-sig" if first else "utf-8"))
    if not isinstance(found, dict):
        raise ValueError(f"it is a {type(found).__name__}")
    if not isinstance(found.get("text"), str):
        raise ValueError('"text" is no string' if "text" in found else 'it has no "text"')
    return found["text"].encode()


def _parquet(opened: IO[bytes], packed: bool, file: Path) -> Iterator[bytes]:
    import pyarrow
    import pyarrow.parquet

    with tempfile.TemporaryFile() as plain:
        if packed:  # its index is at its end, and .xz cannot be read backwards
            _unpack(opened, plain, file)
        try:
            # A buffer makes Arrow read a column in pieces, not a row group at a time.
            table = pyarrow.parquet.ParquetFile(
                plain if packed else opened, buffer_size=BLOCK_BYTES, pre_buffer=False
            )
            _require_text(table.schema_arrow)
            for batch in table.iter_batches(PARQUET_ROWS, columns=["text"], use_threads=False):
                yield from (text.encode() for text in batch.column(0).to_pylist() if text)
        except (pyarrow.ArrowException, ValueError, KeyError, IndexError, MemoryError) as error:
            line = " ".join(str(error).split())
            raise ValueError(
                f'{printable(file)}: expected a Parquet column "text" of strings ({line:.200})'
            ) from error


def _require_text(schema: "pyarrow.Schema") -> None:
    from pyarrow import types

    if (found := len(schema.get_all_field_indices("text"))) != 1:
        raise ValueError(f'it has {found} columns "text" among {", ".join(schema.names):.100}')
    kind = schema.field("text").type
    kind = kind.value_type if types.is_dictionary(kind) else kind
    if not (types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)):
        raise ValueError(f'its "text" is {kind}')


def _unpack(opened: IO[bytes], plain: IO[bytes], file: Path) -> None:
    room = shutil.disk_usage(tempfile.gettempdir()).free // 2
    most = min(room, MOST_PARQUET_BYTES)
    size = 0
    while block := opened.read(BLOCK_BYTES):
        size += len(block)
        if size > most:
            raise ValueError(
                f"{printable(file)} unpacks to more than the {most >> 20:,} MiB there is room for; "
                f"unpack it by hand, Parquet is compressed in itself"
            )
        plain.write(block)
    plain.seek(0, os.SEEK_SET)
