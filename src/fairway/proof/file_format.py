"""The file around a bitstream: magic, a JSON header, named sections, a checksum over all of it.

    8 bytes   magic, which says what kind of file this is
    4 bytes   length of the header, little-endian
    8 bytes   length of all sections together
    header    JSON; "sections" in it lists name and length of each, in order
    sections
    16 bytes  BLAKE2b of everything before

Any damage is found before a single token is decoded. What the header says beyond "sections" is its
users' business: `verify.py` and `compress.py`.
"""

import json
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any, NamedTuple

_LENGTHS = (4, 8)  # bytes of the two length fields
_PREAMBLE = 8 + sum(_LENGTHS)
_DIGEST = 16


class Refused(ValueError):
    """A file that is not what it should be; the message says why, and what to do."""


class Framed(NamedTuple):
    header: dict[str, Any]
    sections: dict[str, bytes]


def pack(magic: bytes, header: Mapping[str, Any], sections: Mapping[str, bytes]) -> bytes:
    """The file's bytes: the same arguments give the same bytes."""
    listed = dict(header) | {"sections": [[name, len(data)] for name, data in sections.items()]}
    head = json.dumps(listed, separators=(",", ":"), ensure_ascii=False).encode()
    body = b"".join(sections.values())
    lengths = (
        value.to_bytes(size, "little")
        for value, size in zip((len(head), len(body)), _LENGTHS, strict=True)
    )
    data = b"".join((magic, *lengths, head, body))
    return data + _digest(data)


def unpack(magic: bytes, data: bytes, kind: str) -> Framed:
    """Header and sections of a file made by `pack`; raises `Refused` for anything else.

    kind  what the file should be, for the message: "a proof"
    """
    if data[:8] != magic:
        raise Refused(f"this is not {kind}: it begins with {data[:8]!r} instead of {magic!r}")
    if len(data) < _PREAMBLE:
        raise Refused(_truncated(len(data), None))
    head_end = _PREAMBLE + int.from_bytes(data[8:12], "little")
    expected = head_end + int.from_bytes(data[12:20], "little") + _DIGEST
    if len(data) < expected:
        raise Refused(_truncated(len(data), expected))
    if len(data) > expected or _digest(data[:-_DIGEST]) != data[-_DIGEST:]:
        raise Refused("the file is damaged: its checksum does not match; fetch or make it again")
    header = json.loads(data[_PREAMBLE:head_end])
    sections, place = {}, head_end
    for name, size in header.pop("sections"):
        sections[name] = data[place : place + size]
        place += size
    return Framed(header, sections)


def _digest(data: bytes) -> bytes:
    return blake2b(data, digest_size=_DIGEST).digest()


def _truncated(present: int, expected: int | None) -> str:
    of = "" if expected is None else f" of {expected:,}"
    return f"the file is cut off: {present:,}{of} bytes are there; fetch or make it again"
