"""Damage on purpose: a true file's header or content changed at random, with true checksums."""

import json
import lzma
import random
from collections.abc import Callable, Iterator

from framed import changed, framed, index_of, parts_of, places
from harness import Case
from kinds import Sample
from safetensors.torch import load, save

ODD: tuple[object, ...] = (
    *(None, True, False, "", "x", "a" * 300, "\n\0\u2028", [], {}, [[]], [None], {"type": "Sgd"}),
    *(0, 1, -1, 2, 3, 7, 255, 256, 65_536, 10**6, 2**31, 2**32, 2**40, 2**53 + 1, 2**63, 2**64),
    *(10**30, -(2**63), 0.0, -0.0, 0.5, 1e-320, 1e308, -1e308, float("nan"), float("inf"), 1e22),
    *(-float("inf"), [1] * 1000, [0, 0], [-1, 5], {"a": 1}, "os:system", "Sgd", "codes", "half"),
)


def fuzz(sample: Sample, number: int, random_: random.Random) -> Iterator[Case]:
    """So many changed files of a sample's kind."""
    change = _CHANGES.get(sample.kind, _bytes)
    data = sample.data
    for _ in range(number):
        yield Case("fuzz", change(data, random_))


def _json(value: object, random_: random.Random) -> object:
    """One to three places of a JSON value changed, removed, doubled or exchanged."""
    for _ in range(random_.choice((1, 1, 1, 2, 3))):
        found = places(value)
        if not found:
            break
        path = random_.choice(found)
        inner: object = value
        for step in path:
            inner = inner[step]  # type: ignore[index]
        new: object = random_.choice(ODD)
        if isinstance(inner, int) and random_.random() < 0.5:
            new = inner + random_.choice((-1, 1, 2, 100, -inner, inner, 1 << 20))
        if isinstance(inner, list) and random_.random() < 0.5:
            new = random_.choice((inner * 2, inner[:-1], inner[::-1], inner[1:], [*inner, inner]))
        if isinstance(inner, dict) and random_.random() < 0.5:
            new = {k: v for k, v in inner.items() if random_.random() < 0.8}
            new |= {"more": 1} if random_.random() < 0.3 else {}
        value = changed(value, path, new)
    return value


def _framed(data: bytes, random_: random.Random) -> bytes:
    """Mostly the header; now and then a section or the list of sections."""
    parts = parts_of(data)
    kind = random_.random()
    if kind < 0.75:
        return parts.file(_json(parts.header, random_))
    if kind < 0.9:
        name = random_.choice(list(parts.sections))
        how, packed = parts.sections[name]
        if random_.random() < 0.2:
            how = random_.choice(("stored", "zlib", "lzma", "zstd", "brotli", "rar"))
        return parts.file(None, **{name: (how, _bytes(packed, random_))})
    listed = _json(index_of(parts.sections), random_)
    return framed(
        parts.magic, json.dumps({**parts.header, "sections": listed}).encode(), parts.sections
    )


def _bytes(data: bytes, random_: random.Random) -> bytes:
    """A few bytes changed, cut out, put in or moved."""
    changed_ = bytearray(data)
    for _ in range(random_.choice((1, 2, 4, 16))):
        place = random_.randrange(len(changed_) + 1)
        match random_.randrange(4):
            case 0 if place < len(changed_):
                changed_[place] = random_.randrange(256)
            case 1:
                del changed_[place : place + random_.randrange(20)]
            case 2:
                changed_[place:place] = random_.randbytes(random_.randrange(20))
            case _:
                start = random_.randrange(len(changed_) + 1)
                changed_[place:place] = changed_[start : start + random_.randrange(40)]
    return bytes(changed_)


def _manifest(data: bytes, random_: random.Random) -> bytes:
    return json.dumps(_json(json.loads(data), random_)).encode()


def _pieces(data: bytes, random_: random.Random) -> bytes:
    pieces = json.loads(lzma.decompress(data[8:]))
    text = json.dumps(_json(pieces, random_), ensure_ascii=random_.random() < 0.5)
    return data[:8] + lzma.compress(text.encode("utf-8", "surrogatepass"))


def _safetensors(data: bytes, random_: random.Random) -> bytes:
    """Its JSON header changed, the length before it right."""
    if random_.random() < 0.2:
        return save(load(data))  # the tensors without what we know of them
    length = int.from_bytes(data[:8], "little")
    header = _json(json.loads(data[8 : 8 + length]), random_)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


_CHANGES: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "model": _framed,
    "proof": _framed,
    "compressed": _framed,
    "data.json": _manifest,
    "our tokenizer": _pieces,
    "tensor file": _safetensors,
}
