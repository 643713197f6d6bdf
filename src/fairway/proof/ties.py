"""The ties of settled arithmetic as bytes of a file, and what a file may say of them."""

from fairway.artifact.sections import Frame, Section
from fairway.coding.marks import pack_marks, unpack_marks
from fairway.evaluate.ledger import Ties
from fairway.runtime.strict_json import Json

LOGITS, STATE = "ties", "ties_learned"
_MOST_SYMBOLS = 1 << 20
_MOST_STATE = 1 << 60  # values that are ever settled


def with_margins(header: dict[str, Json]) -> dict[str, Json]:
    """A file's header, in which one from before gradients had a margin of their own says so."""
    settled = header.get("settled")
    if not isinstance(settled, dict):
        return header
    return {**header, "settled": {"gradient": None, **settled}}


def most_bytes(num_tokens: int) -> int:
    """Of either list: far more than any text needs whose grid is coarse beside its margin."""
    return 256 + num_tokens // 4


def tie_bytes(ties: Ties) -> int:
    """Of both lists, however long."""
    return len(pack_marks(ties.logits)) + len(pack_marks(ties.state))


def tie_sections(ties: Ties, num_tokens: int) -> list[Section]:
    """Raises ValueError where there are so many that the grid must be too fine."""
    sections = [
        Section(LOGITS, "stored", pack_marks(ties.logits)),
        Section(STATE, "stored", pack_marks(ties.state)),
    ]
    for section in sections:
        if len(section.data) > most_bytes(num_tokens):
            raise ValueError(
                f"{len(ties):,} values lie near a boundary, more than a decoder takes: what is "
                "learned here is too fine for settled arithmetic; evaluate with "
                "arithmetic='native'"
            )
    return sections


def read_ties(frame: Frame, num_tokens: int) -> Ties:
    """Raises ValueError for lists that do not fit the text."""
    most = most_bytes(num_tokens)
    return Ties(
        unpack_marks(frame.read(LOGITS, most), num_tokens * _MOST_SYMBOLS),
        unpack_marks(frame.read(STATE, most), _MOST_STATE),
    )
