"""A scored text on the page: coloured by what each token cost, as data for `text.js` and as HTML.

Passages are HTML and need no script; the pieces are packed, and the script colours the one that is
looked at. Colours are steps, so that neighbours can be told apart, and never the only sign: the
bits of a token are said where it is pointed at.
"""

import base64
import json
import zlib
from bisect import bisect_right
from typing import Any

import numpy as np
from markupsafe import Markup, escape

from fairway.report.excerpt import KINDS, Excerpt, Passage, Piece

COST_STEPS = (0.5, 1.0, 2.0, 3.0, 5.0, 8.0, 12.0)  # bits of a token: classes c0 .. c7
FINEST = 50.0  # a byte holds the root of a token's bits, times this: up to 26 bits


def text_view(excerpt: Excerpt) -> dict[str, Any]:
    """What the template shows of an excerpt."""
    pieces = excerpt.pieces
    shown = sum(len(piece.data) for piece in pieces)
    return {
        "data": Markup(_packed(excerpt)),
        "is_whole": excerpt.is_whole,
        "num_documents": excerpt.num_documents,
        "num_bytes": excerpt.num_bytes,
        "shown_bytes": shown,
        "steps": COST_STEPS,
        "passages": [
            (kind, [_shown(excerpt, p) for p in excerpt.passages if p.kind == kind])
            for kind in KINDS
        ],
    }


def _packed(excerpt: Excerpt) -> str:
    """JSON: sizes of the pieces, and their columns one after the other, deflated, in base64."""
    pieces = excerpt.pieces
    columns = [
        b"".join(piece.data for piece in pieces),
        b"".join(piece.token_bytes.astype("<u2").tobytes() for piece in pieces),
        b"".join(_bits_as_bytes(piece.frozen) for piece in pieces),
        b"".join(_bits_as_bytes(piece.bits) for piece in pieces),
    ]
    data = base64.b64encode(zlib.compress(b"".join(columns), 9)).decode()
    sizes = [
        [p.document, p.first_byte, len(p.data), len(p.bits), round(p.bits_per_byte, 3)]
        for p in pieces
    ]
    return json.dumps({"pieces": sizes, "data": data, "steps": COST_STEPS, "finest": FINEST})


def _bits_as_bytes(bits: np.ndarray) -> bytes:
    return np.clip(np.rint(np.sqrt(bits) * FINEST), 0, 255).astype(np.uint8).tobytes()


def _shown(excerpt: Excerpt, passage: Passage) -> dict[str, Any]:
    piece = excerpt.pieces[passage.piece]
    tokens = slice(passage.first, passage.stop)
    num_bytes = int(piece.token_bytes[tokens].sum())
    return {
        "document": piece.document + 1,
        "piece": passage.piece,
        "token": passage.first,
        "bits": f"{piece.bits[tokens].sum() / num_bytes:.2f}",
        "frozen": f"{piece.frozen[tokens].sum() / num_bytes:.2f}",
        "html": coloured(piece, passage.first, passage.stop),
    }


def coloured(piece: Piece, first: int, stop: int) -> Markup:
    """Tokens [first, stop) of a piece as spans, each in the colour of what it cost.

    Tokens that share a character are one span, and what is no UTF-8 is U+FFFD.
    """
    begin = int(piece.token_bytes[:first].sum())
    spans, data, bits = [], b"", 0.0
    for token in range(first, stop):
        end = begin + int(piece.token_bytes[token])
        data += piece.data[begin:end]
        bits += float(piece.bits[token])
        begin = end
        cut_short = end < len(piece.data) and piece.data[end] & 0xC0 == 0x80
        if cut_short and token + 1 < stop:
            continue
        step = bisect_right(COST_STEPS, bits)
        words = escape(data.decode("utf-8", "replace"))
        spans.append(f'<span class="c{step}" title="{bits:.2f} bits">{words}</span>')
        data, bits = b"", 0.0
    return Markup("".join(spans))
