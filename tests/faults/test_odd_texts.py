"""Odd inputs to the compressor, in brief: the same bytes come back."""

import odd_texts
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairway.artifact.loaded_model import LoadedModel
from fairway.proof.compress import CompressConfig, compress, decompress

KINDS = odd_texts.named()
PARTS = st.sampled_from(list(KINDS.values())).flatmap(
    lambda data: st.slices(len(data)).map(lambda cut: data[cut])
)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[LoadedModel]:
    """One whose tokenizer knows bytes only, and one with pieces."""
    return odd_texts.models(tmp_path_factory.mktemp("models"))


@pytest.mark.parametrize("kind", KINDS)
def test_an_odd_text_comes_back(models: list[LoadedModel], kind: str) -> None:
    data = KINDS[kind][: odd_texts.LONGEST]
    for model in models:
        for config in (CompressConfig(), CompressConfig(segments=3, adapt=False)):
            assert decompress(model, compress(model, data, config)) == data


@settings(max_examples=10)
@given(st.lists(PARTS | st.binary(max_size=40), max_size=4), st.integers(1, 5), st.booleans())
def test_a_mixture_comes_back(
    models: list[LoadedModel], parts: list[bytes], segments: int, adapt: bool
) -> None:
    data = b"".join(parts)[: odd_texts.LONGEST]
    config = CompressConfig(segments=segments, adapt=adapt)
    for model in models:
        assert decompress(model, compress(model, data, config)) == data
