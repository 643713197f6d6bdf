"""Bytes as they are, in the frame of a compressed file: for what a model makes no smaller.

Four bytes of magic, a CRC-32 of the bytes (little-endian), the bytes.
"""

import struct
import zlib

from fairway.artifact.sections import Refused

MAGIC = b"FWC0"
HEAD = struct.Struct("<4sI")


def store(data: bytes) -> bytes:
    return HEAD.pack(MAGIC, zlib.crc32(data)) + data


def is_stored(packed: bytes) -> bool:
    return packed[: len(MAGIC)] == MAGIC


def stored(packed: bytes) -> bytes:
    """Inverse of `store`; `Refused` for a damaged file.

    >>> stored(store(b"any bytes"))
    b'any bytes'
    """
    if len(packed) < HEAD.size:
        raise Refused(f"it ends after {len(packed)} bytes, in the middle of its head")
    _, check = HEAD.unpack_from(packed)
    data = packed[HEAD.size :]
    if zlib.crc32(data) != check:
        raise Refused("its bytes are not those that were stored; it is damaged")
    return data
