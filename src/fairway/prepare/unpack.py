"""A stream out of an .xz file, in bounded memory whatever the file says of itself."""

import io
import lzma
from typing import IO

XZ_MAGIC = b"\xfd7zXZ\0"
LZMA_MEMORY = 256 << 20  # bytes; preset 9 needs 65 MiB to decompress
BLOCK_BYTES = 1 << 18


class XzReader(io.RawIOBase):
    """The plain bytes of all streams of an .xz file, one after the other.

    Raises LZMAError for damage and for dictionaries over `LZMA_MEMORY`, EOFError for a cut-off.
    """

    def __init__(self, packed: IO[bytes]) -> None:
        self.packed = packed
        self.stream = self._new()
        self.held = b""  # packed bytes that were read and not yet used

    @staticmethod
    def _new() -> lzma.LZMADecompressor:
        return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=LZMA_MEMORY)

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
        self.stream, self.held = self._new(), rest
        return True
