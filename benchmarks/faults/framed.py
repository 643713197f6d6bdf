"""Files whose frame and checksums are right and whose content is anything."""

import hashlib
import json
import struct
import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import brotli

from fairway.artifact.sections import unpack_frame

Header = dict[str, Any]


class Parts(NamedTuple):
    """sections  (codec, packed bytes) by name"""

    magic: bytes
    header: Header
    sections: dict[str, tuple[str, bytes]]

    def file(self, header: object = None, **sections: tuple[str, bytes]) -> bytes:
        """The same file with another header, or with other sections."""
        stored = {**self.sections, **sections}
        head = self.header if header is None else header
        if isinstance(head, dict):
            head = {"sections": index_of(stored), **head}
        return framed(self.magic, json.dumps(head).encode(), stored)


def index_of(sections: Mapping[str, tuple[str, bytes]]) -> list[list]:
    return [[n, how, len(data), zlib.crc32(data)] for n, (how, data) in sections.items()]


def framed(magic: bytes, header: bytes, sections: Mapping[str, tuple[str, bytes]]) -> bytes:
    """header  JSON, or anything else"""
    head = brotli.compress(header, quality=5)
    file = struct.pack("<4sII", magic, len(head), zlib.crc32(head)) + head
    file += b"".join(data for _, data in sections.values())
    return file + hashlib.sha256(file).digest()


def parts_of(data: bytes) -> Parts:
    frame = unpack_frame(data[:4], data, "a file of fairway")
    sections = {s.name: (s.codec, s.data) for s in frame.sections.values()}
    return Parts(data[:4], frame.header, sections)


def places(value: object, path: tuple = ()) -> list[tuple]:
    """The path of everything in a JSON value."""
    found = [path] if path else []
    if isinstance(value, dict):
        for key, item in value.items():
            found += places(item, (*path, key))
    elif isinstance(value, list):
        for i, item in enumerate(value):
            found += places(item, (*path, i))
    return found


def changed(value: Any, path: tuple, new: object) -> Any:
    """A copy of a JSON value with something else at `path`."""
    copy = json.loads(json.dumps(value))
    inner = copy
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = new
    return copy
