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


class Codec(NamedTuple):
    compress: Callable[[bytes], bytes]
    decompress: Callable[[bytes], bytes]  # raises ValueError when the data is not its own


def _guarded(decompress: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    def call(data: bytes) -> bytes:
        try:
            return decompress(data)
        except (zlib.error, lzma.LZMAError, brotli.error, zstandard.ZstdError) as error:
            raise ValueError(f"{len(data):,} bytes cannot be decompressed: {error}") from error

    return call


def _unzstd(data: bytes) -> bytes:
    """Also of streams that do not say how long they are."""
    stream = zstandard.ZstdDecompressor().decompressobj()
    plain = stream.decompress(data)
    if not stream.eof:
        raise zstandard.ZstdError("the file ends too early")
    return plain


CODECS = {
    "stored": Codec(bytes, bytes),
    "zlib": Codec(partial(zlib.compress, level=9), _guarded(zlib.decompress)),
    "lzma": Codec(
        partial(lzma.compress, preset=9 | lzma.PRESET_EXTREME), _guarded(lzma.decompress)
    ),
    "zstd": Codec(
        lambda data: zstandard.ZstdCompressor(level=22).compress(data),
        _guarded(_unzstd),
    ),
    "brotli": Codec(partial(brotli.compress, quality=11, lgwin=24), _guarded(brotli.decompress)),
}


def codec(name: str) -> Codec:
    """The compressor of that name.

    >>> codec("zlib").decompress(codec("zlib").compress(b"abc"))
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
