"""Low-rank additions enter through the one forward pass."""

import pytest
import torch

from fairway.model.adapters import TARGETS, AdapterConfig, Adapters, Target

from .variants import VARIANTS, build, tokens

MODEL = build(VARIANTS["as #1855"])


def adapters(*targets: Target, rows: int = 2) -> Adapters:
    config = AdapterConfig(rank=3, alpha=6.0, targets=targets)
    made = Adapters(config, MODEL.adapter_dims(), len(MODEL.plan.layers), rows)
    made.reset(warm=False, generator=torch.Generator().manual_seed(1))
    return made


def test_fresh_adapters_change_nothing() -> None:
    ids = tokens()
    with torch.inference_mode():
        assert torch.equal(MODEL(ids, adapters=adapters(*TARGETS)), MODEL(ids))


@pytest.mark.parametrize("target", TARGETS)
def test_each_target_reaches_the_logits_and_stays_causal(target: Target) -> None:
    ids, added = tokens(), adapters(target)
    for up in added.up.values():
        torch.nn.init.normal_(up, std=0.1)
    edited = ids.clone()
    edited[:, 12:] = 7
    with torch.inference_mode():
        before, after = MODEL(ids, adapters=added), MODEL(edited, adapters=added)
        assert not torch.allclose(before, MODEL(ids), atol=1e-3)
    assert torch.equal(before[:, :12], after[:, :12])


def test_each_row_has_its_own() -> None:
    ids, added = tokens(), adapters("query", "head")
    for up in added.up.values():
        torch.nn.init.normal_(up, std=0.1)
        with torch.no_grad():
            up[1] = 0.0
    with torch.inference_mode():
        adapted, plain = MODEL(ids, adapters=added), MODEL(ids)
    assert torch.allclose(adapted[1], plain[1], atol=1e-6)
    assert not torch.allclose(adapted[0], plain[0], atol=1e-3)


def test_adapted_decoding_with_a_cache_is_adapted_scoring() -> None:
    ids, added = tokens(), adapters(*TARGETS)
    for up in added.up.values():
        torch.nn.init.normal_(up, std=0.1)
    with torch.inference_mode():
        full, cache = MODEL(ids, adapters=added), MODEL.new_cache(2, 40)
        parts = [MODEL(part, cache=cache, adapters=added) for part in ids.split([9, 31], 1)]
    assert torch.allclose(torch.cat(parts, 1), full, atol=5e-5)


def test_a_warm_reset_keeps_the_first_factor_alone() -> None:
    added = adapters("query")
    down = {key: value.clone() for key, value in added.down.items()}
    for up in added.up.values():
        torch.nn.init.ones_(up)
    added.reset(warm=True)
    assert all(torch.equal(added.down[key], value) for key, value in down.items())
    assert all(not up.any() for up in added.up.values())
    added.reset(warm=False, generator=torch.Generator().manual_seed(2))
    assert not any(torch.equal(added.down[key], value) for key, value in down.items())


def test_an_adapter_needs_a_place_and_a_rank() -> None:
    with pytest.raises(ValueError, match="no adapter can sit on keys; targets are query, key"):
        AdapterConfig(targets=("keys",))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="rank=0"):
        AdapterConfig(rank=0)


def test_the_addition_is_alpha_over_rank_times_b_a_x() -> None:
    added, x = adapters("query"), torch.randn(2, 5, 32)
    torch.nn.init.normal_(added.up["query_0"])
    down, up = added.down["query_0"], added.up["query_0"]
    expected = torch.stack([(6.0 / 3) * x[row] @ down[row].T @ up[row].T for row in range(2)])
    delta = added.delta("query", 0, x)
    assert delta is not None
    assert torch.allclose(delta, expected, atol=1e-5)
    assert added.delta("value", 0, x) is None
