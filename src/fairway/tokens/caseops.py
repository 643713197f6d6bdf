"""CaseOps (#1729): capitals of ASCII written as operators before lowercase words, and back.

Bytes to bytes, so that text of any kind comes back as it was. Only A to Z are touched: what other
capitals become is not one to one. Which tokens these bytes become is not decided here.
"""

import re

# U+E001 to U+E004, in the order of the field's published tokenizer.
TITLE, ALLCAPS, CAPNEXT, ESCAPE = (chr(code).encode() for code in range(0xE001, 0xE005))
OPERATORS = (TITLE, ALLCAPS, CAPNEXT, ESCAPE)
ANY = rb"\xee\x80[\x81-\x84]"
# Words with a capital, and operators that stand in the text itself. A lookbehind keeps the search
# from starting anew at every letter of a long word.
CAPITALS = re.compile(rb"(?<![A-Za-z])[a-z]*[A-Z][A-Za-z]*|" + ANY)
CAPITAL = re.compile(rb"[A-Z]")
OPERATIONS = re.compile(
    ESCAPE + rb"(" + ANY + rb")|" + ALLCAPS + rb"([a-z]*)|\xee\x80[\x81\x83]([a-z])|" + ANY
)


def encode_case(text: bytes) -> bytes:
    """Lowercase words, each capital told by an operator before it; `decode_case` undoes it.

    >>> encode_case(b"It USES iOS").decode().translate(dict(zip(range(0xE001, 0xE005), "TAC^")))
    'Tit Auses iCoCs'
    """
    return CAPITALS.sub(_encode, text)


def _encode(match: re.Match[bytes]) -> bytes:
    word = match.group()
    if word[0] == 0xEE:
        return ESCAPE + word
    if len(word) > 1 and word.isupper():
        return ALLCAPS + word.lower()
    first = TITLE + word[:1].lower() if word[:1].isupper() else word[:1]
    return first + CAPITAL.sub(lambda letter: CAPNEXT + letter.group().lower(), word[1:])


def decode_case(text: bytes) -> bytes:
    """Inverse of `encode_case`, for any bytes: operators without a letter are dropped."""
    return OPERATIONS.sub(_decode, text)


def _decode(match: re.Match[bytes]) -> bytes:
    literal, word, letter = match.groups()
    return literal or (word or letter or b"").upper()


class CaseDecoder:
    """`decode_case` of a text that comes in pieces."""

    def __init__(self) -> None:
        self.held = b""

    def push(self, piece: bytes) -> bytes:
        """What of the text is certain by now."""
        text = self.held + piece
        settled, after = len(text), b""
        for last in OPERATIONS.finditer(text):
            if last.end() == len(text):
                if last.group(2) is not None:
                    after = ALLCAPS  # its word may go on
                elif not last.group(1) and not last.group(3):
                    settled = last.start()  # its letter is to come
            elif last.group() == ESCAPE and text[last.end() :] in (b"\xee", b"\xee\x80"):
                settled = last.start()
        if settled == len(text):
            settled -= next((n for n in (2, 1) if text.endswith(b"\xee\x80"[:n])), 0)
        self.held = after + text[settled:]
        return decode_case(text[:settled])

    def finish(self) -> bytes:
        """The rest."""
        rest, self.held = decode_case(self.held), b""
        return rest
