"""Ending a stream of bytes before the first of some texts, without showing a part of one."""

from collections.abc import Iterable, Iterator, Sequence


def before_first(pieces: Iterable[bytes], stops: Sequence[bytes]) -> Iterator[bytes]:
    """The bytes of `pieces` up to the first place where any of `stops` begins.

    What may be the beginning of a stop is held back until it is known.

    >>> list(before_first([b"one t", b"wo th", b"ree"], [b"two"]))
    [b'one ']
    """
    filtered = StopFilter(stops)
    for piece in pieces:
        if shown := filtered.push(piece):
            yield shown
        if filtered.found:
            return
    if rest := filtered.finish():
        yield rest


class StopFilter:
    """The same, piece by piece. `found`: a stop has come, and nothing after it is shown."""

    def __init__(self, stops: Sequence[bytes]) -> None:
        self.stops, self.held, self.found = stops, b"", False

    def push(self, piece: bytes) -> bytes:
        """What can be shown by now."""
        held = self.held + piece
        places = [place for stop in self.stops if (place := held.find(stop)) >= 0]
        if places:
            self.held, self.found = b"", True
            return held[: min(places)]
        keep = max((_begun(held, stop) for stop in self.stops), default=0)
        self.held = held[len(held) - keep :]
        return held[: len(held) - keep]

    def finish(self) -> bytes:
        """What was held back, for no stop will come."""
        rest, self.held = self.held, b""
        return rest


def _begun(held: bytes, stop: bytes) -> int:
    """How many last bytes of `held` are the first bytes of `stop`, at most."""
    sizes = range(min(len(held), len(stop) - 1), 0, -1)
    return next((size for size in sizes if stop.startswith(held[-size:])), 0)
