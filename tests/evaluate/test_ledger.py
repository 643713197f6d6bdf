"""Rounding agrees between machines that differ by less than a margin."""

import pytest
import torch
from torch import Tensor

from fairway.evaluate.ledger import Deviates, Ledger, Margins, Ties

WIDE = Margins(logit=1e-5, state=2.0**-25, state_bits=14)


def noise(like: Tensor, most: float, seed: int = 5) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (2 * torch.rand(like.shape, generator=generator, dtype=torch.float64) - 1) * most


def some_logits() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(64, 500, generator=generator, dtype=torch.float64) * 4, torch.arange(64)


def test_noise_of_half_a_margin_changes_no_slice() -> None:
    logits, positions = some_logits()
    here = Ledger(WIDE)
    ends = here.ends(logits, positions)
    assert here.ties.logits
    there = Ledger(WIDE, here.ties)
    assert torch.equal(there.ends(logits + noise(logits, WIDE.logit / 2), positions), ends)
    without = Ledger(WIDE, Ties())
    assert not torch.equal(without.ends(logits + noise(logits, WIDE.logit / 2), positions), ends)


def test_rows_may_come_in_any_number() -> None:
    logits, positions = some_logits()
    ends = Ledger(WIDE).ends(logits, positions)
    parts = [Ledger(WIDE).ends(logits[i : i + 3], positions[i : i + 3]) for i in range(0, 64, 3)]
    assert torch.equal(torch.cat(parts), ends)


@pytest.mark.parametrize("name", ["weights/a", "a/exp_avg_sq", "second/a"])
def test_what_was_learned_is_settled_alike(name: str) -> None:
    generator = torch.Generator().manual_seed(4)
    learned = torch.rand(40_000, generator=generator, dtype=torch.float64) ** 4
    here, mine = Ledger(WIDE), {name: learned.clone()}
    here.settle(mine)
    assert here.ties.state
    roots = learned.sqrt() if name != "weights/a" else learned
    other = (roots + noise(roots, WIDE.state / 4)).clamp_min(0)
    theirs = {name: other.square() if name != "weights/a" else other}
    Ledger(WIDE, here.ties).settle(theirs)
    assert torch.equal(theirs[name], mine[name])


def test_momenta_that_only_decay_are_no_ties() -> None:
    """0.729 of a whole number of steps lies exactly between two for one number in a thousand."""
    whole = torch.arange(-30_000, 30_000, dtype=torch.float64)
    state = {"optimizer/a/momentum_buffer": 0.9 * 0.9 * 0.9 * whole}
    ledger = Ledger(Margins(state=2.0**-43, state_bits=15))
    ledger.settle(state)
    assert not ledger.ties.state


def test_steps_smaller_than_the_grid_add_up() -> None:
    """What nearest rounding would lose at every lesson is learned all the same."""
    weights = torch.full((4096,), 0.5, dtype=torch.float64)
    weights[0] = 1.0
    state, ledger = {"weights/a": weights}, Ledger(Margins(state_bits=10, state=2.0**-40))
    step = 2.0**-10 / 10
    for _ in range(50):
        weights[1:] += step
        ledger.settle(state)
    learned = float(weights[1:].mean()) - 0.5
    assert abs(learned / (50 * step) - 1) < 0.05


def test_what_is_settled_stays() -> None:
    state = {"weights/a": torch.randn(1000, dtype=torch.float64)}
    Ledger(WIDE).settle(state)
    before, again = state["weights/a"].clone(), Ledger(WIDE)
    again.settle(state)
    assert torch.equal(state["weights/a"], before)
    assert not again.ties.state


def test_an_announced_tie_that_is_none_here_is_an_error() -> None:
    with pytest.raises(Deviates, match="announced tie"):
        Ledger(WIDE, Ties({0: True})).ends(torch.zeros(1, 4, dtype=torch.float64), torch.zeros(1))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e9])
def test_logits_that_no_grid_takes_are_named(bad: float) -> None:
    with pytest.raises(ValueError, match="logits are not finite"):
        Ledger(WIDE).ends(torch.full((1, 4), bad, dtype=torch.float64), torch.zeros(1))
