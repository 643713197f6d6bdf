"""Optimizers at test time: the library's, at a rate for each name, going on from what was saved."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from fairway.evaluate.learners.optimizers import Stepper, is_control, new_stepper, rate_of
from fairway.evaluate.learners.sgd import Sgd
from fairway.runtime.distributed import Ranks

CONFIGS = {
    "sgd": Sgd(optimizer="sgd", momentum=0.9),
    "adamw": Sgd(optimizer="adamw", weight_decay=0.1),
    "muon": Sgd(optimizer="muon", rates=(("*.0.*", 0.5),)),
}


def weights() -> dict[str, nn.Parameter]:
    torch.manual_seed(0)
    shapes = {"blocks.0.up": (6, 4), "blocks.1.up": (6, 4), "blocks.0.scale": (4,)}
    return {name: nn.Parameter(torch.randn(shape)) for name, shape in shapes.items()}


def take_steps(stepper: Stepper, named: dict[str, nn.Parameter], steps: range) -> None:
    for i in steps:
        generator = torch.Generator().manual_seed(i)
        for parameter in named.values():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        stepper.step(0.1)


def test_sgd_is_the_library_s_at_the_rate_of_each_name() -> None:
    named, twin = weights(), weights()
    config = replace(CONFIGS["sgd"], rates=(("*.scale", 0.5), ("blocks.1.*", 0.0)))
    take_steps(new_stepper(config, named, Ranks()), named, range(3))
    for name, rate in (("blocks.0.up", 1.0), ("blocks.0.scale", 0.5), ("blocks.1.up", 0.0)):
        one = torch.optim.SGD([twin[name]], lr=0.1 * rate, momentum=0.9)
        for i in range(3):
            generator = torch.Generator().manual_seed(i)
            grads = {n: torch.randn(p.shape, generator=generator) for n, p in twin.items()}
            twin[name].grad = grads[name]
            one.step()
        assert torch.allclose(named[name], twin[name])


@pytest.mark.parametrize("kind", CONFIGS)
def test_it_goes_on_from_a_saved_state(kind: str) -> None:
    whole, part = weights(), weights()
    take_steps(new_stepper(CONFIGS[kind], whole, Ranks()), whole, range(4))
    first = new_stepper(CONFIGS[kind], part, Ranks())
    take_steps(first, part, range(2))
    second = new_stepper(CONFIGS[kind], part, Ranks())
    second.load_state_dict(first.state_dict())
    take_steps(second, part, range(2, 4))
    assert all(torch.equal(whole[name], part[name]) for name in whole)


def test_the_first_pattern_that_fits_gives_the_rate() -> None:
    rates = (("blocks.0.*", 0.5), ("blocks.*", 0.25))
    assert [rate_of(name, rates) for name in ("blocks.0.up", "blocks.1.up", "embed")] == [
        0.5,
        0.25,
        1.0,
    ]


def test_controls_are_vectors_and_the_matrices_that_steer() -> None:
    matrix, vector = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2))
    assert is_control("blocks.0.mlp_scale", vector)
    assert is_control("blocks.0.residual_mix", matrix)
    assert not is_control("blocks.0.mlp.up.weight", matrix)
