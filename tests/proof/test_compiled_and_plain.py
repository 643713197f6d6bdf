"""A settled code does not depend on whether kernels of ours, or plain forms, computed it."""

from dataclasses import replace

import pytest

from fairway.artifact.sections import unpack_frame
from fairway.evaluate.config import EvaluateConfig
from fairway.proof.compress import MAGIC, code, decompress
from fairway.runtime.native import explain, library, switched_off

from .conftest import loaded
from .test_settled_stream import STREAM, WAYS

TEXT = b"Round alike, wherever it was computed: what a compiler made, and what none did. " * 2
NAMES = ("decode", "training", "matrices", "settling")

pytestmark = pytest.mark.skipif(
    any(library(name, tuned=True) is None for name in NAMES), reason=explain(*NAMES, tuned=True)
)


def symbols(data: bytes) -> bytes:
    """The code alone: beside it a file says what it was made with."""
    return unpack_frame(MAGIC, data, "a file that fairway compressed").read("symbols", len(data))


@pytest.mark.parametrize("way", ["frozen", "muon", "sgd and mixture", "adamw"])
def test_either_encodes_the_same_bytes_and_either_decodes_them(way: str) -> None:
    config: EvaluateConfig = replace(WAYS[way], rows=STREAM.rows)
    model = loaded(config)
    compiled = code(model, TEXT)
    with switched_off():
        assert symbols(code(model, TEXT)) == symbols(compiled)
        assert decompress(model, compiled) == TEXT
    assert decompress(model, compiled) == TEXT
