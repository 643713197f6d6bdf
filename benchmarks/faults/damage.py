"""Damage by accident: bytes flipped, files cut short, files grown."""

import random
from collections.abc import Iterator

from harness import Case


def flips(data: bytes, most: int, random_: random.Random) -> Iterator[Case]:
    """Each byte of a small file with one bit or all of it turned; as many places of a large one."""
    places = range(len(data)) if len(data) <= most else random_.sample(range(len(data)), most)
    for place in places:
        turned = bytearray(data)
        turned[place] ^= random_.choice(
            (1 << random_.randrange(8), 0xFF, random_.randrange(1, 256))
        )
        yield Case("flip", bytes(turned))


def cuts(data: bytes, most: int, random_: random.Random) -> Iterator[Case]:
    """Cut off anywhere; half of them at the edges, where headers end."""
    lengths = set(range(min(len(data), most // 4)))
    lengths |= {max(0, len(data) - n) for n in range(1, most // 4)}
    while len(lengths) < min(most, len(data)):
        lengths.add(random_.randrange(len(data)))
    for length in sorted(lengths)[:most]:
        yield Case("truncation", data[:length])


def extensions(data: bytes, most: int, random_: random.Random) -> Iterator[Case]:
    """Grown at the end, at the beginning, or in the middle."""
    for _ in range(most):
        more = random_.choice((b"\0", b"\n", b" ", random_.randbytes(random_.randint(1, 40))))
        place = random_.choice((len(data), len(data), 0, random_.randint(0, len(data))))
        yield Case("extension", data[:place] + more + data[place:])
