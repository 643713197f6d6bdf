"""Coloured text: nothing of it is markup, and the packed columns are those of the excerpt."""

import base64
import json
import zlib

import numpy as np

from fairway.report.excerpt import Excerpt, Piece
from fairway.report.marked_text import COST_STEPS, coloured, text_view


def piece(words: list[bytes], bits: list[float]) -> Piece:
    sizes = np.array([len(word) for word in words])
    return Piece(3, 7, b"".join(words), sizes, np.array(bits) + 1.0, np.array(bits))


def test_text_is_escaped_and_each_token_has_its_step() -> None:
    html = coloured(piece([b"<b>", b"&", b"x"], [0.0, 2.5, 20.0]), 0, 3)
    assert html == (
        '<span class="c0" title="0.00 bits">&lt;b&gt;</span>'
        '<span class="c3" title="2.50 bits">&amp;</span>'
        f'<span class="c{len(COST_STEPS)}" title="20.00 bits">x</span>'
    )


def test_a_character_of_two_tokens_is_one_span() -> None:
    html = coloured(piece([b"a", b"\xc3", b"\xa9", b"b"], [1.0, 2.0, 3.0, 1.0]), 0, 4)
    assert "é" in html
    assert html.count("<span") == 3
    assert 'title="5.00 bits">é' in html


def test_the_packed_columns_are_those_of_the_pieces() -> None:
    shown = piece([b"ab", b"c" * 300], [0.25, 9.0])
    held = json.loads(text_view(Excerpt((shown,), (), 5, 302))["data"])
    assert held["pieces"] == [[3, 7, 302, 2, round(9.25 / 302, 3)]]
    data = zlib.decompress(base64.b64decode(held["data"]))
    assert data[:302] == shown.data
    assert np.frombuffer(data[302:306], "<u2").tolist() == [2, 300]
    bits = (np.frombuffer(data[306:], np.uint8) / held["finest"]) ** 2
    assert np.allclose(bits, [1.25, 10.0, 0.25, 9.0], atol=0.05)
