"""Streams out of packed files, in bounded memory whatever the files say of themselves.

How a file is packed, its first bytes say. Every reader gives the plain bytes of all its parts, one
after the other, and raises EOFError for a file that was cut off.
"""

import bz2
import gzip
import io
import lzma
import zipfile
from collections.abc import Callable, Iterator
from typing import IO, NamedTuple, Protocol

import zstandard

LZMA_MEMORY = 256 << 20  # bytes; preset 9 needs 65 MiB to decompress
ZSTD_WINDOW = 128 << 20  # bytes; what `zstd -d` allows without being asked for more
BLOCK_BYTES = 1 << 18
# A block of four bytes may stand for 128 KiB: so much more may come out of what is fed at once.
ZSTD_FEED_BYTES = 512


class _Stream(Protocol):
    """A decompressor of one part of a file, of the standard library's kind."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    @property
    def needs_input(self) -> bool: ...
    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


class _Zstd:
    """zstandard's decompressor, which takes no limit: it is fed so little that none is needed."""

    def __init__(self) -> None:
        self.inner = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW).decompressobj()
        self.packed, self.plain = b"", b""

    @property
    def eof(self) -> bool:
        return self.inner.eof and not self.plain

    @property
    def unused_data(self) -> bytes:
        return self.inner.unused_data + self.packed

    @property
    def needs_input(self) -> bool:
        return not self.packed and not self.plain

    def decompress(self, data: bytes, max_length: int) -> bytes:
        self.packed += data
        while not self.plain and self.packed and not self.inner.eof:
            feed, self.packed = self.packed[:ZSTD_FEED_BYTES], self.packed[ZSTD_FEED_BYTES:]
            self.plain = self.inner.decompress(feed)
        found, self.plain = self.plain[:max_length], self.plain[max_length:]
        return found


class PackedReader(io.RawIOBase):
    """The plain bytes of all streams of a packed file, one after the other."""

    def __init__(self, packed: IO[bytes], new: Callable[[], _Stream]) -> None:
        self.packed, self.new = packed, new
        self.stream = new()
        self.held = b""  # packed bytes that were read and not yet used

    def readable(self) -> bool:
        return True

    def readinto(self, into: memoryview) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        size = len(into)
        while size:
            if self.stream.eof and not self._next_stream():
                return 0
            if self.stream.needs_input and not self.held:
                self.held = self.packed.read(BLOCK_BYTES)
                if not self.held:
                    raise EOFError("it was cut off")
            found = self.stream.decompress(self.held, size)
            self.held = b""
            if found:
                into[: len(found)] = found
                return len(found)
        return 0

    def _next_stream(self) -> bool:
        """Whether another stream follows; between streams there may be zeros."""
        rest = self.stream.unused_data
        while not (rest := rest.lstrip(b"\0")):
            if not (rest := self.packed.read(BLOCK_BYTES)):
                return False
        self.stream, self.held = self.new(), rest
        return True


def _xz() -> _Stream:
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=LZMA_MEMORY)


class Packing(NamedTuple):
    """One way to pack a file; `open` is None where it holds files of its own."""

    suffix: str
    magic: bytes
    open: Callable[[IO[bytes]], io.RawIOBase | gzip.GzipFile] | None


PACKINGS = (
    Packing(".xz", b"\xfd7zXZ\0", lambda raw: PackedReader(raw, _xz)),
    Packing(".gz", b"\x1f\x8b", lambda raw: gzip.GzipFile(fileobj=raw)),
    Packing(".zst", b"\x28\xb5\x2f\xfd", lambda raw: PackedReader(raw, _Zstd)),
    Packing(".bz2", b"BZh", lambda raw: PackedReader(raw, bz2.BZ2Decompressor)),
    Packing(".zip", b"PK\x03\x04", None),
)
MAGIC_BYTES = max(len(packing.magic) for packing in PACKINGS)
DAMAGED = (lzma.LZMAError, zstandard.ZstdError, zipfile.BadZipFile, EOFError)


def packing_of(first: bytes) -> Packing | None:
    """How a file that begins with these bytes is packed."""
    return next((packing for packing in PACKINGS if first.startswith(packing.magic)), None)


def zip_members(raw: IO[bytes]) -> Iterator[tuple[str, IO[bytes]]]:
    """Name and plain bytes of each file in a zip file, in its own order."""
    with zipfile.ZipFile(raw) as archive:
        for member in archive.infolist():
            if member.is_dir():
                continue
            try:
                with archive.open(member) as opened:
                    yield member.filename, opened
            except (RuntimeError, NotImplementedError) as error:  # a password, a rare method
                raise zipfile.BadZipFile(f"{member.filename!r:.100}: {error}") from error
