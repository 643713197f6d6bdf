"""The decode step in C++ is its plain twin, whatever a model is made of."""

import copy

import pytest
import torch
from torch import Tensor

from fairway.model.adapters import AdapterConfig, Adapters
from fairway.model.cache import Cache
from fairway.model.decode_step import (
    describe_step,
    narrow_matrices,
    next_logits,
    why_plain,
    window_logits,
)
from fairway.model.gpt import GPT
from fairway.recipes.registry import RECIPES, recipe, smoke
from fairway.runtime.native import explain, library, switched_off, untuned

from .variants import PLAIN, VARIANTS, build, tokens

pytestmark = pytest.mark.skipif(
    library("decode", tuned=True) is None, reason=explain("decode", tuned=True)
)
CLOSE = {torch.float32: 1e-5, torch.float64: 1e-12}
TYPES = pytest.mark.parametrize("dtype", CLOSE, ids=str)


def of_type(model: GPT, dtype: torch.dtype) -> GPT:
    model = copy.deepcopy(model).to(dtype).eval()
    model.compute_dtype = dtype
    return model


def read(
    model: GPT, ids: Tensor, opening: int, adapters: Adapters | None = None
) -> tuple[Tensor, Cache]:
    """Logits after each token from the opening's last one on, token by token."""
    cache = model.new_cache(*ids.shape)
    first = [next_logits(model, ids[:, :opening], cache, adapters)] if opening else []
    rest = [next_logits(model, one, cache, adapters) for one in ids[:, opening:].split(1, dim=1)]
    return torch.stack(first + rest, dim=1), cache


def assert_twins(
    model: GPT, ids: Tensor, adapters: Adapters | None = None, opening: int = 7
) -> None:
    assert not why_plain(model)
    found, cache = read(model, ids, opening, adapters)
    with untuned():
        plain, plain_cache = read(model, ids, opening, adapters)
    assert_close(found, plain, CLOSE[model.compute_dtype])
    for name in ("keys", "values", "embedding"):
        # A short vector, normalized, shows its rounding many times enlarged.
        assert_close(getattr(cache, name), getattr(plain_cache, name), 20 * CLOSE[found.dtype])
    assert torch.equal(cache.tokens, plain_cache.tokens)
    assert cache.length == plain_cache.length


def assert_close(found: Tensor, plain: Tensor, close: float) -> None:
    assert found.dtype == plain.dtype
    assert (found - plain).abs().max() <= close * max(1.0, float(plain.abs().max()))


@TYPES
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_part_of_a_model_has_its_twin(variant: str, dtype: torch.dtype) -> None:
    assert_twins(of_type(build(VARIANTS[variant]), dtype), tokens())


@TYPES
@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_has_its_twin(name: str, dtype: torch.dtype) -> None:
    config = smoke(recipe(name)).model
    model = of_type(build(config), dtype)
    assert_twins(model, tokens(rows=3, vocab_size=config.vocab_size))
    model.loops_active = False
    assert_twins(model, tokens(rows=1, vocab_size=config.vocab_size))


@TYPES
@pytest.mark.parametrize("rows", [1, 4, 7])
def test_with_additions_of_its_own_for_each_row(rows: int, dtype: torch.dtype) -> None:
    model = of_type(build(VARIANTS["as #1855"]), dtype)
    every = AdapterConfig(rank=3, targets=("query", "key", "value", "output", "mlp", "head"))
    slots = len(model.plan.layers)
    adapters = Adapters(every, model.adapter_dims(), slots, rows)
    torch.manual_seed(0)
    for up in adapters.up.values():
        torch.nn.init.normal_(up, std=0.1)
    assert_twins(model, tokens(rows), adapters.to(dtype))


@TYPES
def test_a_first_token_alone(dtype: torch.dtype) -> None:
    model = of_type(build(VARIANTS["as #414"]), dtype)
    assert_twins(model, tokens(), opening=0)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("start", [0, 5])
def test_a_whole_window_has_its_twin(variant: str, start: int) -> None:
    model, ids = of_type(build(VARIANTS[variant]), torch.float64), tokens(rows=3)
    found = window_logits(model, ids, start=start)
    with torch.inference_mode():
        assert_close(found, model(ids, start=start), CLOSE[torch.float64])


def test_windows_side_by_side_know_nothing_of_each_other() -> None:
    model, ids = of_type(build(VARIANTS["as #1855"]), torch.float64), tokens(rows=5)
    apart = [window_logits(model, row[None], start=3) for row in ids]
    assert torch.equal(window_logits(model, ids, start=3), torch.cat(apart))


def test_no_sum_depends_on_the_number_of_rows_or_threads() -> None:
    model, ids = build(VARIANTS["as #1855"]), tokens(rows=6)
    together, _ = read(model, ids, 0)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        apart = [read(model, row[None], 0)[0] for row in ids]
    finally:
        torch.set_num_threads(before)
    assert torch.equal(together, torch.cat(apart))


@TYPES
def test_what_is_learned_between_two_tokens_is_seen(dtype: torch.dtype) -> None:
    model, ids = of_type(build(PLAIN), dtype), tokens(rows=1)
    cache = model.new_cache(1, 40)
    next_logits(model, ids[:, :7], cache)
    before = next_logits(model, ids[:, 7:8], cache)
    with torch.no_grad():
        model.embed.weight *= 1.5
    cache.length -= 1
    assert not torch.allclose(next_logits(model, ids[:, 7:8], cache), before, atol=1e-3)


@pytest.mark.parametrize("exact", [True, False])
def test_matrices_in_half_the_memory_where_that_is_exact(exact: bool) -> None:
    model = of_type(build(VARIANTS["as #1855"]), torch.float64)
    if not exact:
        with torch.no_grad():
            model.blocks[0].mlp.up.weight *= 1.1  # type: ignore[operator, union-attr]
    assert bool(narrow_matrices(model)) == exact
    assert_twins(model, tokens(rows=5))


def test_a_model_made_in_inference_mode_is_read_as_it_lies() -> None:
    with torch.inference_mode():
        model = of_type(build(PLAIN), torch.float64)
        assert not narrow_matrices(model)
        assert_twins(model, tokens(rows=2))


def test_a_token_without_an_embedding_is_refused_and_nothing_is_read() -> None:
    model = build(PLAIN)
    cache = model.new_cache(1, 4)
    for wrong in (-1, PLAIN.vocab_size):
        with pytest.raises(IndexError, match=str(wrong)):
            next_logits(model, torch.tensor([[wrong]]), cache)
    assert cache.length == 0


def test_a_full_cache_refuses_more_and_names_the_mend() -> None:
    model = build(PLAIN)
    cache = model.new_cache(1, 1)
    next_logits(model, torch.tensor([[1]]), cache)
    with pytest.raises(ValueError, match=r"2 positions do not fit a cache of 1.*larger context"):
        next_logits(model, torch.tensor([[1]]), cache)


def test_it_is_said_when_the_plain_pass_decodes() -> None:
    model = build(PLAIN)
    assert describe_step(model) == "compiled C++"
    with switched_off():
        assert "plain" in describe_step(model)
    model.compute_dtype = torch.bfloat16
    assert describe_step(model) == "plain forward pass (it computes in bfloat16)"
