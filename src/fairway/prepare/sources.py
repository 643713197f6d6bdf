"""Documents out of files that nobody vouches for.

What a file is, its first bytes say; its name only tells JSON lines from plain text, and is held
against the bytes where they disagree. Nothing that a file says of its own size is believed: text is
read in blocks, lines and documents have limits, and every refusal names the file, and the line.
"""

import io
import json
import os
import shutil
import stat
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any

from fairway.prepare.unpack import DAMAGED, MAGIC_BYTES, PACKINGS, packing_of, zip_members
from fairway.runtime.limits import one_line

if TYPE_CHECKING:
    import pyarrow

BLOCK_BYTES = 1 << 20
FIELD = "text"
MOST_LINE_BYTES = 64 << 20  # of JSON lines
MOST_DOCUMENT_BYTES = 1 << 30  # a document is held in memory, whole
MOST_PARQUET_BYTES = 16 << 30  # of a packed Parquet file, which must be unpacked to be read
PARQUET_ROWS = 16  # decoded at a time
PARQUET_MAGIC = b"PAR1"
LOOK_BYTES = 4096  # of a file, to tell what it is
FOREIGN = {  # what begins like this is no text
    **{packing.magic: f"packed once more ({packing.suffix})" for packing in PACKINGS},
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


def read_documents(
    sources: Sequence[Path], position: Position | None = None, field: str = FIELD
) -> Iterator[bytes]:
    """Documents of all sources in order, one at a time; blank ones are passed over.

    Plain text (documents separated by NUL), JSON lines and Parquet, each also packed as .xz, .gz,
    .zst, .bz2 or .zip; a folder stands for the files in it. Raises ValueError naming what cannot be
    read.

    field  the name under which JSON lines and Parquet hold a document
    """
    for file in source_files(sources):
        yield from read_file(file, position, field)


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


def quoted(field: str) -> str:
    r"""A field's name as JSON writes it, on one line.

    >>> quoted("text")
    '"text"'
    """
    return json.dumps(field)[:100]


def read_file(file: Path, position: Position | None = None, field: str = FIELD) -> Iterator[bytes]:
    """Documents of one file in order, without the blank ones."""
    try:
        with (position or Position()).reading(file) as raw:
            for document in _documents(file, raw, field):
                if len(document) > MOST_DOCUMENT_BYTES:
                    raise ValueError(_too_long(file))
                if document.strip():
                    yield document
    except (*DAMAGED, zlib.error, OSError) as error:
        raise ValueError(f"{printable(file)} cannot be read: {one_line(error)}") from error


def _documents(file: Path, raw: IO[bytes], field: str) -> Iterator[bytes]:
    packing = packing_of(raw.read(MAGIC_BYTES))
    raw.seek(0)
    suffixes = {packing.suffix for packing in PACKINGS}
    if file.suffix in suffixes and (packing is None or file.suffix != packing.suffix):
        raise ValueError(
            f"{printable(file)} cannot be read: it is no {file.suffix} file, despite its name"
        )
    if packing is None:
        yield from _plain_documents(file, file.suffix, raw, field)
    elif packing.open is None:
        for name, opened in zip_members(raw):
            inside = file / PurePosixPath(name).name
            yield from _plain_documents(inside, inside.suffix, _buffered(opened), field, True)
    else:
        inner = Path(file.stem).suffix if file.suffix in suffixes else file.suffix
        yield from _plain_documents(file, inner, _buffered(packing.open(raw)), field, True)


def _buffered(opened: Any) -> io.BufferedReader:
    return io.BufferedReader(opened, BLOCK_BYTES)


def _plain_documents(
    file: Path, suffix: str, opened: IO[bytes], field: str, packed: bool = False
) -> Iterator[bytes]:
    """Documents of what is not packed any more."""
    first = opened.peek(LOOK_BYTES)[:LOOK_BYTES] if isinstance(opened, io.BufferedReader) else b""
    if first.startswith(PARQUET_MAGIC):
        yield from _parquet(opened, packed, file, field)
    elif suffix == ".parquet":
        raise ValueError(f"{printable(file)} cannot be read: it is no Parquet, despite its name")
    else:
        _refuse_binary(first, file)
        if suffix in (".jsonl", ".ndjson"):
            yield from _json_lines(opened, file, field)
        else:
            yield from _split_at_nul(opened, file)


def _refuse_binary(first: bytes, file: Path) -> None:
    """ValueError for what is no text, by how it begins."""
    known = next((kind for magic, kind in FOREIGN.items() if first.startswith(magic)), None)
    odd = len(first) - len(first.translate(None, CONTROL))
    if known is None and (20 * odd > len(first) or 4 * first.count(b"\0") > max(len(first), 64)):
        known = "binary data"
    if known is not None:
        raise ValueError(
            f"{printable(file)} is {known}, not text; sources are plain text (UTF-8), .jsonl and "
            f".parquet, and {', '.join(packing.suffix for packing in PACKINGS)} of them"
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


def _json_lines(opened: IO[bytes], file: Path, field: str) -> Iterator[bytes]:
    number = 0
    while line := opened.readline(MOST_LINE_BYTES + 1):
        number += 1
        try:
            if len(line) > MOST_LINE_BYTES:
                raise ValueError(f"a line of more than {MOST_LINE_BYTES >> 20} MiB")
            if line.strip():
                yield _text_of(line, field, first=number == 1)
        except (ValueError, RecursionError) as error:
            raise ValueError(
                f"{printable(file)}, line {number}: expected an object with a string "
                f"{quoted(field)} ({error!s:.200}); --field names another"
            ) from error


def _text_of(line: bytes, field: str, first: bool) -> bytes:
    """One field of one line; ValueError, or RecursionError for what nests too deep."""
    found = json.loads(line.decode("utf-8-sig" if first else "utf-8"))
    if not isinstance(found, dict):
        raise ValueError(f"it is a {type(found).__name__}")
    if not isinstance(found.get(field), str):
        name = quoted(field)
        raise ValueError(f"{name} is no string" if field in found else f"it has no {name}")
    return found[field].encode()


def _parquet(opened: IO[bytes], packed: bool, file: Path, field: str) -> Iterator[bytes]:
    import pyarrow
    import pyarrow.parquet

    with tempfile.TemporaryFile() as plain:
        if packed:  # its index is at its end, and a stream cannot be read backwards
            _unpack(opened, plain, file)
        try:
            # A buffer makes Arrow read a column in pieces, not a row group at a time.
            table = pyarrow.parquet.ParquetFile(
                plain if packed else opened, buffer_size=BLOCK_BYTES, pre_buffer=False
            )
            _require_text(table.schema_arrow, field)
            for batch in table.iter_batches(PARQUET_ROWS, columns=[field], use_threads=False):
                yield from (text.encode() for text in batch.column(0).to_pylist() if text)
        except (pyarrow.ArrowException, ValueError, KeyError, IndexError, MemoryError) as error:
            line = " ".join(str(error).split())
            raise ValueError(
                f"{printable(file)}: expected a Parquet column {quoted(field)} of strings "
                f"({line:.200}); --field names another"
            ) from error


def _require_text(schema: "pyarrow.Schema", field: str) -> None:
    from pyarrow import types

    if (found := len(schema.get_all_field_indices(field))) != 1:
        among = ", ".join(schema.names)
        raise ValueError(f"it has {found} columns {quoted(field)} among {among:.100}")
    kind = schema.field(field).type
    kind = kind.value_type if types.is_dictionary(kind) else kind
    if not (types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)):
        raise ValueError(f"its {quoted(field)} is {kind}")


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
