"""What must hold of the forward pass, whichever options are on."""

from dataclasses import replace

import pytest
import torch

from fairway.model.attention import GateConfig
from fairway.model.blank import num_params
from fairway.model.depth import Loop
from fairway.model.gpt import GPT
from fairway.model.mlp import MlpConfig
from fairway.model.model_config import ParallelConfig, SkipConfig

from .variants import LOOP, PLAIN, VARIANTS, build, tokens

EVERY = pytest.mark.parametrize("variant", VARIANTS)


@EVERY
def test_no_position_sees_its_future(variant: str) -> None:
    """Equal, not close: a leak of 1e-7 is a leak."""
    model, before = build(VARIANTS[variant]), tokens()
    with torch.inference_mode():
        logits = model(before)
        for cut in (1, 13, 39):
            after = before.clone()
            after[:, cut:] = 60 - (after[:, cut:] + 5) % 59
            after[:, -1] = 1  # a document that begins later changes nothing either
            assert torch.equal(model(after)[:, :cut], logits[:, :cut])


@EVERY
def test_the_past_matters_and_so_does_each_row(variant: str) -> None:
    model, ids = build(VARIANTS[variant]), tokens()
    with torch.inference_mode():
        logits = model(ids)
        assert bool(torch.isfinite(logits).all())
        swapped = model(ids.flip(0)).flip(0)
        edited = ids.clone()
        edited[:, 3] = 59
        changed = (model(edited) - logits).abs().amax((0, 2))
    assert torch.allclose(swapped, logits, atol=1e-5)
    assert bool((changed[:3] == 0).all())
    assert bool((changed[3:20] > 0).all())


@EVERY
def test_the_late_positions_alone_come_out_as_in_a_full_pass(variant: str) -> None:
    model, ids = build(VARIANTS[variant]), tokens()
    with torch.inference_mode():
        full = model(ids)
        for start in (1, 24, 39):
            assert torch.allclose(model(ids, start=start), full[:, start:], atol=2e-5)


@EVERY
def test_every_weight_that_ships_has_a_gradient(variant: str) -> None:
    model, ids = build(VARIANTS[variant]).train(), tokens()
    model.loss(ids, ids.roll(-1, 1)).backward()
    without = [n for n, p in model.named_parameters() if p.grad is None]
    assert not without
    assert all(bool(torch.isfinite(p.grad).all()) for p in model.parameters() if p.grad is not None)


@EVERY
def test_the_loss_is_the_cross_entropy_of_the_logits(variant: str) -> None:
    model, ids = build(VARIANTS[variant]), tokens()
    targets = ids.roll(-1, 1)
    with torch.inference_mode():
        for start in (0, 11):
            logits = model(ids, start=start).flatten(0, 1)
            expected = torch.nn.functional.cross_entropy(logits, targets[:, start:].flatten())
            assert torch.allclose(model.loss(ids, targets, start=start), expected, atol=1e-5)


@pytest.mark.parametrize("variant", ["shared parallel", "two lanes"])
def test_parallel_blocks_cost_no_matrices(variant: str) -> None:
    added = GPT(VARIANTS[variant]).state_dict().keys() - GPT(PLAIN).state_dict().keys()
    assert added <= {"lane_carry", "lane_route"}


def test_looped_blocks_add_depth_but_no_parameters() -> None:
    looped = replace(PLAIN, loop=LOOP)
    assert num_params(looped) == num_params(PLAIN)
    assert GPT(looped).plan.layers == (0, 1, 2, 3, 1, 2, 3, 1, 2, 3, 4)


def test_loops_can_be_switched_off_and_on_in_one_model() -> None:
    model, ids = build(replace(PLAIN, loop=LOOP, skips=SkipConfig(gated=True))), tokens()
    with torch.inference_mode():
        on = model(ids)
        model.loops_active = False
        off = model(ids)
        model.loops_active = True
        assert torch.equal(model(ids), on)
    assert not torch.allclose(on, off, atol=1e-2)


def test_a_loop_that_goes_back_past_the_lanes_computes_nothing_it_throws_away() -> None:
    """In #1855 such passes change a stream that nobody reads; here they are left out."""
    config = replace(
        PLAIN, loop=Loop(first=2, last=3), parallel=ParallelConfig(start=3, form="lanes")
    )
    model, ran = build(config), []
    for layer, block in enumerate(model.blocks):
        block.register_forward_hook(lambda *_, layer=layer: ran.append(layer))
    model(tokens())
    assert model.plan.layers == (0, 1, 2, 3, 2, 3, 2, 3, 4)
    assert ran == [0, 1, 2, 3, 2, 3, 3, 4]


def test_documents_in_one_row_do_not_see_each_other() -> None:
    config = VARIANTS["as #1855"]
    model, ids = build(config), tokens()
    edited = ids.clone()
    edited[:, 1:23] = 2
    with torch.inference_mode():
        packed, other, alone = model(ids), model(edited), model(ids[:, 23:])
    assert torch.equal(packed[:, 23:], other[:, 23:])  # equal, not close
    assert torch.allclose(packed[:, 23:], alone, atol=2e-5)


def test_extra_heads_serve_training_and_never_ship() -> None:
    with_heads, ids = replace(PLAIN, extra_heads=2), tokens()
    assert num_params(with_heads) == num_params(PLAIN)
    model, plain = build(with_heads), build(PLAIN)
    assert model.shipped_state_dict().keys() == plain.state_dict().keys()
    targets = ids.roll(-1, 1)
    assert torch.equal(model(ids), plain(ids))
    assert torch.equal(model.loss(ids, targets), plain.loss(ids, targets))
    assert model.train().loss(ids, targets) > plain.train().loss(ids, targets)


def test_what_ships_is_float32_and_loads_again() -> None:
    model = build(VARIANTS["as #414"])
    shipped = model.shipped_state_dict()
    assert {tensor.dtype for tensor in shipped.values()} == {torch.float32}
    again = GPT(model.config).eval()
    again.load_state_dict(shipped)
    assert torch.equal(again(tokens()), model(tokens()))


def test_a_fresh_model_predicts_nearly_the_uniform_distribution() -> None:
    torch.manual_seed(0)
    model = GPT(VARIANTS["as #414"]).eval()
    loss = model.loss(tokens(), tokens().roll(-1, 1)).item()
    assert loss == pytest.approx(torch.tensor(61.0).log().item(), abs=0.05)


def test_activations_may_be_bfloat16_while_weights_stay_float32() -> None:
    model, ids = build(VARIANTS["as #414"]), tokens()
    exact = model(ids)
    model.compute_dtype = torch.bfloat16
    rounded = model(ids)
    assert rounded.dtype == torch.float32
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert 0 < (rounded - exact).abs().max() < 0.5


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_dim": 36}, "head width 9 is odd"),
        ({"loop": Loop(first=2, last=5)}, "loop ends at layer 5 of 5"),
        ({"logit_softcap": 0.0}, "use None for no cap"),
    ],
)
def test_a_model_that_cannot_be_built_cannot_be_described(changes: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        replace(PLAIN, **changes)


def test_options_that_are_off_leave_no_parameters() -> None:
    names = set(GPT(PLAIN).state_dict())
    for part in ("gate", "ngrams", "smear", "value_embed", "skip", "lane", "head", "embed_up"):
        assert not [name for name in names if part in name]
    gated = replace(PLAIN, attention=replace(PLAIN.attention, gate=GateConfig(window=4)))
    assert set(GPT(gated).state_dict()) - names == {f"blocks.{i}.attention.gate" for i in range(5)}
    assert (
        num_params(replace(PLAIN, mlp=MlpConfig(ratio=3.0))) == num_params(PLAIN) + 5 * 2 * 32 * 32
    )
