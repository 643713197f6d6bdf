"""Decoding with what is remembered gives what a full pass gives."""

import pytest
import torch

from .variants import PLAIN, VARIANTS, build, tokens

EVERY = pytest.mark.parametrize("variant", VARIANTS)


@EVERY
def test_decoding_with_a_cache_gives_the_logits_of_a_full_pass(variant: str) -> None:
    model, ids = build(VARIANTS[variant]), tokens()
    with torch.inference_mode():
        full = model(ids)
        cache = model.new_cache(2, 40)
        pieces = [model(piece, cache=cache) for piece in ids.split([7, 1, 1, 16, 15], dim=1)]
        assert torch.allclose(torch.cat(pieces, 1), full, atol=2e-5)
        cache.clear()
        again = model(ids[:, :9], cache=cache, start=8)
    assert torch.allclose(again, full[:, 8:9], atol=2e-5)


def test_a_full_cache_refuses_more_and_names_the_mend() -> None:
    model = build(PLAIN)
    cache = model.new_cache(1, 4)
    model(tokens(1, 4 + 24)[:, :4], cache=cache)
    with pytest.raises(ValueError, match=r"5 positions do not fit a cache of 4.*larger context"):
        model(tokens(1, 24)[:, :1], cache=cache)
