"""The first documents that can be proved in a time, by a trial's measure."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fairway.evaluate.config import EvaluateConfig
from fairway.proof.certificate import Certificate
from fairway.proof.fitting import first_provable
from fairway.proof.prove import prove
from fairway.tokens.val_text import ValText

from .conftest import loaded

MODEL = loaded(EvaluateConfig(context=16, stride=8))
TEXT = ValText.of_documents([b"one text", b"another one", b"the last"], MODEL.tokenizer)


def tried(number: int, out: Path) -> Certificate:
    """At one second a token, half of it for decoding."""
    found = prove(MODEL, TEXT, out=out, num_targets=number)
    return replace(found, encode_seconds=number / 2, decode_seconds=number / 2)


@pytest.mark.parametrize("documents", [1, 2, 3])
def test_as_many_documents_as_can_be_proved_are_taken(documents: int, tmp_path: Path) -> None:
    needed = TEXT.leading(documents).num_targets
    part = first_provable(tried, TEXT, needed / 0.9 + 1e-6)
    assert torch.equal(part.tokens, TEXT.leading(documents).tokens)
    certificate = prove(MODEL, part, out=tmp_path / "p.fwp")
    assert certificate.holds
    assert certificate.scope == (part.scope or None)
    assert (certificate.scope is None) == (documents == 3)
    assert Certificate.from_json(certificate.to_json()) == certificate


def test_where_not_even_one_can_be_proved_the_seconds_are_told() -> None:
    needed = TEXT.leading(1).num_targets / 0.9
    with pytest.raises(ValueError, match=f"not even the first document .* in {needed:.0f} s"):
        first_provable(tried, TEXT, 2.0)
