"""Ending a stream of bytes before the first of some texts, without showing a part of one."""

from collections.abc import Iterable, Iterator, Sequence


def before_first(pieces: Iterable[bytes], stops: Sequence[bytes]) -> Iterator[bytes]:
    """The bytes of `pieces` up to the first place where any of `stops` begins.

    What may be the beginning of a stop is held back until it is known.

    >>> list(before_first([b"one t", b"wo th", b"ree"], [b"two"]))
    [b'one ']
    """
    held = b""
    for piece in pieces:
        held += piece
        found = [place for stop in stops if (place := held.find(stop)) >= 0]
        if found:
            if min(found):
                yield held[: min(found)]
            return
        keep = max((_begun(held, stop) for stop in stops), default=0)
        if len(held) > keep:
            yield held[: len(held) - keep]
            held = held[len(held) - keep :]
    if held:
        yield held


def _begun(held: bytes, stop: bytes) -> int:
    """How many last bytes of `held` are the first bytes of `stop`, at most."""
    sizes = range(min(len(held), len(stop) - 1), 0, -1)
    return next((size for size in sizes if stop.startswith(held[-size:])), 0)
