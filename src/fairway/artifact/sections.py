"""The frame of every file we write: magic, a JSON header, named sections, checksums over all of it.

    magic, 4 bytes | length, crc32 of the header | header | sections | sha256 of everything before

The header is JSON compressed by brotli; its "sections" list name, codec, length and crc32 of each,
in order. Nothing is believed before its checksum is, and nothing is decompressed beyond what its
reader allows. What header and sections mean is their users' business: `container.py`, and proofs
and compressed files in `proof/`.
"""

import hashlib
import json
import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from fairway.coding.codecs import codec, smallest
from fairway.runtime.strict_json import parse_json

_PREAMBLE = struct.Struct("<4sII")  # magic, header length, header crc32
_DIGEST_BYTES = 32
_MOST_HEADER = 1 << 22  # bytes of JSON: a line for each tensor, some fifty bytes long


class Refused(ValueError):
    """A file that is not what it should be; the message says why, and what to do."""


class Section(NamedTuple):
    """data  as it stands in the file, packed by `codec`"""

    name: str
    codec: str
    data: bytes


class Frame(NamedTuple):
    """header    less its "sections"
    sections  by name, still packed; `read` unpacks one
    sizes     bytes of the file that each part takes; they sum to it
    """

    header: dict[str, Any]
    sections: dict[str, Section]
    sizes: dict[str, int]

    def read(self, name: str, most: int) -> bytes:
        """A section's content, of at most so many bytes; `Refused` where it is missing or more."""
        if name not in self.sections:
            raise Refused(f"it has no section {name!r}; another version of fairway made it")
        section = self.sections[name]
        try:
            return codec(section.codec).decompress(section.data, most)
        except ValueError as error:
            raise Refused(f"section {name!r}: {error}") from error


def best_packed(name: str, data: bytes) -> Section:
    """The section as the codec that makes most of it packs it."""
    # On little data the header of lzma loses to brotli, and setting it up takes longest.
    names = ("stored", "brotli") if len(data) < 4096 else ("stored", "brotli", "lzma")
    return Section(name, *smallest(data, names))


def pack_frame(magic: bytes, header: Mapping[str, Any], sections: Sequence[Section]) -> bytes:
    """The file's bytes; the same arguments give the same bytes."""
    index = [[s.name, s.codec, len(s.data), zlib.crc32(s.data)] for s in sections]
    head = codec("brotli").compress(to_json({**header, "sections": index}).encode())
    body = b"".join(section.data for section in sections)
    file = _PREAMBLE.pack(magic, len(head), zlib.crc32(head)) + head + body
    return file + hashlib.sha256(file).digest()


def unpack_frame(magic: bytes, data: bytes, kind: str, otherwise: str = "") -> Frame:
    """Inverse of `pack_frame`; raises `Refused` naming the part that is damaged or missing.

    kind       what the file should be, for the message: "a proof of fairway"
    otherwise  what to do with a file that is something else
    """
    if data[:4] != magic:
        raise Refused(
            f"this is not {kind}: it begins with {bytes(data[:4])!r} instead of {magic!r}"
            f"{otherwise}"
        )
    if len(data) < _PREAMBLE.size + _DIGEST_BYTES:
        raise Refused(f"the file is cut off after {len(data)} bytes; fetch or make it again")
    _, length, crc = _PREAMBLE.unpack_from(data)
    end, start = len(data) - _DIGEST_BYTES, _PREAMBLE.size + length
    header = _header(_checked("header", data[_PREAMBLE.size : min(start, end)], length, crc))
    sizes = {"header": start, "checksum": _DIGEST_BYTES}
    sections: dict[str, Section] = {}
    for name, how, length, crc in _index(header):
        packed = _checked(name, data[start : min(start + length, end)], length, crc)
        sections[name] = Section(name, how, packed)
        sizes[name] = length
        start += length
    if start != end:
        raise Refused(f"{end - start} bytes too many follow the last section; fetch it again")
    if hashlib.sha256(data[:end]).digest() != data[end:]:
        raise Refused("the file's checksum is wrong: it is damaged; fetch or make it again")
    return Frame(header, sections, sizes)


def to_json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), sort_keys=True, allow_nan=False)


def _header(packed: bytes) -> dict[str, Any]:
    try:
        header = parse_json(codec("brotli").decompress(packed, _MOST_HEADER))
    except ValueError as error:
        raise Refused(f"its header cannot be read: {error}") from error
    if not isinstance(header, dict) or "sections" not in header:
        raise Refused("its header is no JSON object with sections")
    return header


def _index(header: dict[str, Any]) -> list[tuple[str, str, int, int]]:
    """The lines of "sections", taken out of the header, each of the right types."""
    index = header.pop("sections")
    if not isinstance(index, list):
        raise Refused("its header's sections are no list")
    found = []
    for line in index:
        match line:
            case [str(name), str(how), length, crc] if type(length) is type(crc) is int:
                if length < 0:
                    raise Refused(f"its header lists a section as {line!r:.80}")
                found.append((name, how, length, crc))
            case _:
                raise Refused(f"its header lists a section as {line!r:.80}")
    names = [name for name, *_ in found]
    if len(set(names)) < len(names):
        raise Refused("its header lists a section twice")
    return found


def _checked(name: str, data: bytes, length: int, crc: int) -> bytes:
    if len(data) < length:
        raise Refused(
            f"section {name!r} is cut off: {len(data):,} of {length:,} bytes; fetch the file again"
        )
    if zlib.crc32(data) != crc:
        raise Refused(f"section {name!r} is damaged: its checksum is wrong; fetch it again")
    return data
