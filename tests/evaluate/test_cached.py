from dataclasses import replace

import pytest
import torch

from fairway.evaluate.cached import cached_runs, drop_oldest
from fairway.evaluate.chunks import cut_chunk, plan_chunks
from fairway.evaluate.config import EvaluateConfig
from fairway.evaluate.frozen import Frozen
from fairway.model.attention import AttentionConfig

from .models import ADAPTERS, CONTEXT, PLAIN, VOCAB, text, tiny_model, val_text

TOKENS, STARTS = text((70, 50))


def test_runs_hold_every_window_once_in_order_and_never_cross_a_row() -> None:
    (plan,) = plan_chunks(len(TOKENS), CONTEXT, 4, 200, STARTS)
    for length in (2, 3, 50):
        runs = cached_runs(plan, length)
        assert [i for run in runs for i in run] == list(range(len(plan.windows)))
        assert max(map(len, runs)) <= length
        assert all(len({plan.rows[i] for i in run}) == 1 for run in runs)


def test_a_run_of_one_window_is_exact() -> None:
    chunk = cut_chunk(plan_chunks(len(TOKENS), CONTEXT, 4, 200)[0], val_text(TOKENS))
    exact = Frozen(tiny_model()).score(chunk)
    runs = cached_runs(chunk.plan, 3)
    cached = Frozen(tiny_model(), cached=3).score(chunk)
    offsets = chunk.plan.offsets
    for run in runs:
        opening = slice(offsets[run[0]], offsets[run[0] + 1])
        assert torch.allclose(cached[opening], exact[opening], atol=1e-5)
    assert not torch.allclose(cached, exact, atol=1e-4)  # what goes on saw more text
    assert abs(float((cached - exact).mean())) < 0.1


def test_one_layer_has_nothing_to_approximate() -> None:
    """Keys of the first layer depend on their token alone, so turning them back is exact."""
    model = tiny_model(num_layers=1, skips=None)
    chunk = cut_chunk(plan_chunks(len(TOKENS), CONTEXT, 4, 200)[0], val_text(TOKENS))
    exact, cached = (Frozen(model, cached=c).score(chunk) for c in (None, 5))
    assert torch.allclose(cached, exact, atol=1e-5)


@pytest.mark.parametrize("rope_dims", [None, 4])
def test_turned_keys_are_those_of_their_new_places(rope_dims: int | None) -> None:
    attention = AttentionConfig(num_heads=2, num_kv_heads=1, rope_dims=rope_dims)
    model = tiny_model(num_layers=1, skips=None, attention=attention)
    tokens = torch.randint(2, VOCAB, (2, CONTEXT))
    moved, fresh = model.new_cache(2, CONTEXT), model.new_cache(2, CONTEXT)
    with torch.inference_mode():
        model(tokens, cache=moved)
        drop_oldest(model, moved, 5)
        model(tokens[:, 5:], cache=fresh)
    assert moved.length == fresh.length == CONTEXT - 5
    assert torch.allclose(moved.keys[..., :11, :], fresh.keys[..., :11, :], atol=1e-5)
    assert torch.equal(moved.tokens[:, :11], fresh.tokens[:, :11])


def test_settings_that_share_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="at least two windows"):
        EvaluateConfig(cached=1)
    with pytest.raises(ValueError, match="set cached=None"):
        replace(PLAIN, cached=4, documents=True, ttt=ADAPTERS)
