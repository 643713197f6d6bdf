"""Few marked places among very many, each with one bit, in few bytes: how ties are written down.

Distances from one mark to the next are nearly geometric, so Golomb-Rice codes (Rice & Plaut 1971)
cost within a few hundredths of their entropy: about two bits more than the logarithm of the mean
distance, the bit of the mark itself included.
"""

from collections.abc import Mapping

MOST_SHIFT = 60
_SHIFT_BITS = 6


def pack_marks(marks: Mapping[int, bool]) -> bytes:
    """Places from 0 up, each with its bit; empty where there is none.

    >>> unpack_marks(pack_marks({1000: True, 5: False}), 2000) == {5: False, 1000: True}
    True
    """
    if not marks:
        return b""
    places = sorted(marks)
    if places[0] < 0:
        raise ValueError(f"a mark at place {places[0]}")
    gaps = [b - a - 1 for a, b in zip([-1, *places], places, strict=False)]
    shift = max(0, min(MOST_SHIFT, (sum(gaps) // len(gaps)).bit_length() - 1))
    size = len(places).bit_length()  # in unary, then the number of marks itself: Elias's gamma
    bits = [f"{'0' * (size - 1)}{len(places):b}{shift:0{_SHIFT_BITS}b}"]
    for place, gap in zip(places, gaps, strict=True):
        low = f"{gap & ((1 << shift) - 1):0{shift}b}" if shift else ""
        bits.append(f"{'1' * (gap >> shift)}0{low}{int(marks[place])}")
    joined = "".join(bits)
    padded = joined + "0" * (-len(joined) % 8)
    return int(padded, 2).to_bytes(len(padded) // 8, "big")


def unpack_marks(data: bytes, most: int) -> dict[int, bool]:
    """Inverse of `pack_marks`, for places below `most`.

    Raises ValueError for anything else: places out of bounds, bytes left over, too few of them.
    """
    if not data:
        return {}
    bits = f"{int.from_bytes(data, 'big'):0{8 * len(data)}b}"
    size = bits.find("1") + 1
    at = 2 * size - 1 + _SHIFT_BITS
    if size < 1 or at > len(bits):
        raise ValueError(f"{len(data):,} bytes that count no marks")
    count, shift = int(bits[size - 1 : 2 * size - 1], 2), int(bits[at - _SHIFT_BITS : at], 2)
    if count > min(most, len(bits)) or shift > MOST_SHIFT:
        raise ValueError(f"{count:,} marks among {most:,} places, in {len(data):,} bytes")
    place, marks = -1, dict[int, bool]()
    for _ in range(count):
        stop = bits.find("0", at)
        end = stop + 1 + shift + 1
        if stop < 0 or end > len(bits):
            raise ValueError(f"{len(data):,} bytes hold fewer than {count:,} marks")
        place += 1 + ((stop - at) << shift) + int(bits[stop + 1 : end - 1] or "0", 2)
        if place >= most:
            raise ValueError(f"a mark at place {place:,} of {most:,}")
        marks[place], at = bits[end - 1] == "1", end
    if len(bits) - at >= 8 or "1" in bits[at:]:
        raise ValueError(f"bytes are left over after {count:,} marks")
    return marks
