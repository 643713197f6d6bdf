"""General-purpose compressors under one name each, and the byte shuffle some of them profit from.

They pack what is not weight codes, and read the containers of earlier submissions. A codec whose
library is missing fails at import: falling back to a weaker one has cost submissions their cap.
"""

import lzma
import zlib
from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

import brotli
import numpy as np
import zstandard

SHUFFLE_MAGIC = b"BSHF"
LZMA_MEMORY = 256 << 20  # bytes; preset 9 needs 65 MiB to decompress
ZSTD_WINDOW = 1 << 27  # bytes; level 22 asks for no more


class Codec(NamedTuple):
    """decompress  takes the data and how many bytes may come of it; ValueError for foreign data
    and for more, before the memory is taken: what a file says of itself may be a lie
    """

    compress: Callable[[bytes], bytes]
    decompress: Callable[[bytes, int], bytes]


def _bounded(grow: Callable[[bytes, int], tuple[bytes, bool]]) -> Callable[[bytes, int], bytes]:
    """A decompressor from a function that yields up to so many bytes, and whether that was all."""

    def call(data: bytes, most: int) -> bytes:
        try:
            found, whole = grow(data, most + 1)
        except (zlib.error, lzma.LZMAError, brotli.error, zstandard.ZstdError) as error:
            raise ValueError(f"{len(data):,} bytes cannot be decompressed: {error}") from error
        if len(found) > most:
            raise ValueError(f"{len(data):,} bytes decompress to more than the {most:,} they may")
        if not whole:
            raise ValueError(f"{len(data):,} bytes cannot be decompressed: they are cut off")
        return found

    return call


def _zlib(data: bytes, size: int) -> tuple[bytes, bool]:
    stream = zlib.decompressobj()
    return stream.decompress(data, size), stream.eof


def _lzma(data: bytes, size: int) -> tuple[bytes, bool]:
    stream = lzma.LZMADecompressor(memlimit=LZMA_MEMORY)
    return stream.decompress(data, size), stream.eof


def _zstd(data: bytes, size: int) -> tuple[bytes, bool]:
    with zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW).stream_reader(data) as stream:
        found = stream.read(size)
    declared = zstandard.frame_content_size(data)  # -1: the frame does not say
    return found, declared in (-1, len(found)) or len(found) == size


def _brotli(data: bytes, size: int) -> tuple[bytes, bool]:
    stream = brotli.Decompressor()
    parts = [stream.process(data, output_buffer_limit=size)]
    length = len(parts[0])
    while length < size and not stream.is_finished():
        parts.append(stream.process(b"", output_buffer_limit=size - length))
        if not parts[-1]:
            break
        length += len(parts[-1])
    return b"".join(parts), stream.is_finished()


def _stored(data: bytes, size: int) -> tuple[bytes, bool]:
    return bytes(data[:size]), True


CODECS = {
    "stored": Codec(bytes, _bounded(_stored)),
    "zlib": Codec(partial(zlib.compress, level=9), _bounded(_zlib)),
    "lzma": Codec(partial(lzma.compress, preset=9 | lzma.PRESET_EXTREME), _bounded(_lzma)),
    "zstd": Codec(lambda data: zstandard.ZstdCompressor(level=22).compress(data), _bounded(_zstd)),
    "brotli": Codec(partial(brotli.compress, quality=11, lgwin=24), _bounded(_brotli)),
}


def codec(name: str) -> Codec:
    """The compressor of that name.

    >>> codec("zlib").decompress(codec("zlib").compress(b"abc"), 3)
    b'abc'
    """
    if name not in CODECS:
        raise ValueError(f"unknown codec {name!r}; choose one of {', '.join(sorted(CODECS))}")
    return CODECS[name]


def smallest(data: bytes, names: Iterable[str] = ("stored", "brotli", "lzma")) -> tuple[str, bytes]:
    """The name and the output of the codec that packs `data` best; the first named wins a tie."""
    return min(((name, codec(name).compress(data)) for name in names), key=lambda nc: len(nc[1]))


def shuffle(data: bytes, stride: int = 2) -> bytes:
    """All first bytes of `stride`, then all second ones, and so on, behind a header (#1394).

    >>> shuffle(b"aAbBc", 2)
    b'BSHF\\x02abcAB'
    """
    if not 1 <= stride <= 255:
        raise ValueError(f"stride={stride}; it is stored in one byte, so 1 to 255")
    return SHUFFLE_MAGIC + bytes([stride]) + b"".join(data[i::stride] for i in range(stride))


def unshuffle(data: bytes) -> bytes:
    """Inverse of `shuffle`.

    >>> unshuffle(b"BSHF\\x02abcAB")
    b'aAbBc'
    """
    if data[: len(SHUFFLE_MAGIC)] != SHUFFLE_MAGIC or len(data) < 5 or data[4] == 0:
        raise ValueError(f"not byte-shuffled: begins with {data[:5]!r} instead of b'BSHF' + stride")
    stride, body = data[4], np.frombuffer(data, np.uint8, offset=5)
    out, start = np.empty(len(body), np.uint8), 0
    for i in range(stride):
        count = len(range(i, len(body), stride))
        out[i::stride] = body[start : start + count]
        start += count
    return out.tobytes()
