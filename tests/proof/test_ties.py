"""Lists of ties that no text needs are refused, and so are models that no grid takes."""

from contextlib import suppress
from dataclasses import replace

import pytest
import torch

from fairway.artifact.sections import Frame, Refused, Section
from fairway.evaluate.learners.sgd import Sgd
from fairway.evaluate.ledger import Margins, Ties
from fairway.evaluate.settled import settled_model
from fairway.proof.compress import CompressConfig, compress, decompress
from fairway.proof.reproducible import NotReproducible
from fairway.proof.ties import LOGITS, STATE, most_bytes, read_ties, tie_sections

from .conftest import FROZEN, loaded, tiny_model

TEXT = b"the cat sat on the mat; the rat sat on the cat. " * 4


def frame(*sections: Section) -> Frame:
    return Frame({}, {section.name: section for section in sections}, {})


def test_ties_come_back() -> None:
    ties = Ties({5: True, 900: False}, {1 << 40: True})
    assert read_ties(frame(*tie_sections(ties, 100)), 100) == ties


def test_more_ties_than_any_text_needs_are_neither_written_nor_read() -> None:
    many = Ties({}, {3 * place: True for place in range(8 * most_bytes(100))})
    with pytest.raises(ValueError, match="arithmetic='native'"):
        tie_sections(many, 100)
    long = Section(LOGITS, "stored", bytes(most_bytes(100) + 1))
    with pytest.raises(ValueError, match=r"ties"):
        read_ties(frame(long, Section(STATE, "stored", b"")), 100)


def test_ties_beyond_the_text_are_refused() -> None:
    beyond = tie_sections(Ties({(1 << 20) * 100: True}), 1000)
    with pytest.raises(ValueError, match="a mark at place"):
        read_ties(frame(*beyond), 100)


@pytest.mark.parametrize("told", ["none", "one too many", "turned round"])
def test_an_altered_list_never_gives_a_wrong_text(
    told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond the checksum, which whoever alters a list may have mended."""
    monkeypatch.setattr(Sgd, "margins", lambda self: Margins(logit=1e-6))
    model = loaded(replace(FROZEN, ttt=Sgd(chunk_tokens=16, epochs=1, lr=0.05)))
    packed = compress(model, TEXT, CompressConfig(every=16, guard=False))
    assert decompress(model, packed) == TEXT
    read = read_ties

    def altered(frame: Frame, num_tokens: int) -> Ties:
        ties = read(frame, num_tokens).logits
        assert ties
        if told == "none":
            return Ties()
        if told == "one too many":
            return Ties(ties | {min(ties) + 1: True})
        return Ties({place: not up for place, up in ties.items()})

    monkeypatch.setattr("fairway.proof.compress.read_ties", altered)
    with suppress(Refused, NotReproducible):
        assert decompress(model, packed) == TEXT


@pytest.mark.parametrize("weight", [float("nan"), float("inf")])
def test_logits_that_no_grid_takes_are_named(weight: float) -> None:
    model = loaded(FROZEN)
    with torch.no_grad():
        model.model.embed.weight[3] = weight
    with pytest.raises(ValueError, match=r"logits are not finite, or beyond"):
        compress(model, TEXT)


def test_a_device_without_float64_is_told_of_native_arithmetic() -> None:
    with pytest.raises(ValueError, match="arithmetic='native'"):
        settled_model(tiny_model().to("meta"))
