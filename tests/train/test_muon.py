from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from fairway.train.muon import COEFFICIENTS, Muon, MuonConfig, normalize_rows, orthogonalize

SHAPES = {"wide": (8, 24), "tall": (24, 8), "square": (8, 8), "wide too": (8, 24)}


def matrices(seed: int = 0) -> dict[str, nn.Parameter]:
    """Random matrices with random gradients; equal shapes and transposed ones among them."""
    generator = torch.Generator().manual_seed(seed)
    made = {}
    for name, shape in SHAPES.items():
        made[name] = nn.Parameter(torch.randn(shape, generator=generator))
        made[name].grad = torch.randn(shape, generator=generator)
    return made


@pytest.mark.parametrize("polynomial", ["jordan", "polar_express"])
@pytest.mark.parametrize("shape", [(3, 16, 16), (2, 16, 40), (2, 40, 16)])
def test_singular_values_end_near_one_and_singular_vectors_stay(polynomial, shape) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    result = orthogonalize(matrix, COEFFICIENTS[polynomial], torch.float32)
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    kept = u.mT @ result @ v.mT
    values = kept.diagonal(dim1=-2, dim2=-1)
    # Both polynomials lift values above about 1e-3 of the norm and leave the least ones lower.
    assert values[s > 0.02 * s.amax(-1, keepdim=True)].sub(1).abs().max() < 0.4
    torch.testing.assert_close(kept, torch.diag_embed(values), atol=1e-4, rtol=0)


def test_a_zero_matrix_stays_zero() -> None:
    for coefficients in COEFFICIENTS.values():
        assert not orthogonalize(normalize_rows(torch.zeros(2, 4, 6)), coefficients).any()


def test_normalized_rows_have_length_one() -> None:
    rows = normalize_rows(torch.randn(3, 5, 7) * 1e-3)
    torch.testing.assert_close(rows.norm(dim=-1), torch.ones(3, 5))


def textbook_step(weight: Tensor, buffer: Tensor, gradient: Tensor, c: MuonConfig) -> None:
    """One matrix alone, written as the papers have it."""
    buffer.mul_(c.momentum).add_(gradient)
    update = gradient + c.momentum * buffer
    if c.row_normalize:
        update = update / update.norm(dim=1, keepdim=True)
    update = orthogonalize(update[None], COEFFICIENTS[c.polynomial], torch.float32)[0]
    weight.mul_(1 - c.lr * c.weight_decay)
    weight.sub_(c.lr * max(1.0, weight.size(0) / weight.size(1)) ** 0.5 * update)


@pytest.mark.parametrize("row_normalize", [False, True])
@pytest.mark.parametrize("polynomial", ["jordan", "polar_express"])
def test_a_batch_of_matrices_steps_as_each_would_alone(row_normalize: bool, polynomial) -> None:
    config = MuonConfig(row_normalize=row_normalize, polynomial=polynomial)
    together = matrices()
    alone = {name: p.detach().clone() for name, p in together.items()}
    buffers = {name: torch.zeros_like(p) for name, p in together.items()}
    optimizer = Muon(together, config, dtype=torch.float32)
    for _ in range(3):
        optimizer.step()
        for name, parameter in together.items():
            assert parameter.grad is not None
            textbook_step(alone[name], buffers[name], parameter.grad, config)
    for name, parameter in together.items():
        torch.testing.assert_close(parameter.detach(), alone[name], atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("golden", "row_normalize"), [("muon", False), ("muoneq_r", True)])
def test_steps_equal_those_of_the_published_scripts(
    shared: Path, golden: str, row_normalize: bool, dtype: torch.dtype
) -> None:
    vector = torch.load(shared / "vectors" / "muon.pt", weights_only=True)[golden]
    config = MuonConfig(
        lr=vector["lr"],
        momentum=vector["momentum"],
        weight_decay=vector["weight_decay"],
        row_normalize=row_normalize,
    )
    weights = {str(i): nn.Parameter(m.clone()) for i, m in enumerate(vector["before"])}
    optimizer = Muon(weights, config, dtype=dtype)
    for gradients in vector["grads"]:
        for weight, gradient in zip(weights.values(), gradients, strict=True):
            weight.grad = gradient
        optimizer.step()
    for weight, before, after in zip(
        weights.values(), vector["before"], vector["after"], strict=True
    ):
        # The scripts multiply in bfloat16, which alone moves the update by two per cent: float32
        # differs from them as much as another order of the same bfloat16 products does.
        assert (weight.detach() - after).norm() < 3e-2 * (after - before).norm()
        torch.testing.assert_close(weight.detach(), after, atol=2e-3, rtol=2e-2)


def test_a_missing_gradient_counts_as_zero() -> None:
    one, other = matrices(), matrices()
    one["wide"].grad, other["wide"].grad = None, torch.zeros(SHAPES["wide"])
    for group in (one, other):
        Muon(group, MuonConfig()).step()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_saved_momentum_continues_exactly() -> None:
    straight, resumed = matrices(), matrices()
    first = Muon(straight, MuonConfig())
    first.step()
    state = {name: momentum.clone() for name, momentum in first.state_dict().items()}
    first.step()

    Muon(resumed, MuonConfig()).step()
    second = Muon(resumed, MuonConfig())
    second.load_state_dict(state)
    second.step()
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)


def test_errors_name_what_is_wrong() -> None:
    with pytest.raises(ValueError, match=r"'gain' has shape \(4,\); put it into another group"):
        Muon({"gain": nn.Parameter(torch.ones(4))}, MuonConfig())
    with pytest.raises(ValueError, match=r"differ in square, tall, wide, wide too, x"):
        Muon(matrices(), MuonConfig()).load_state_dict({"x": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"choose one of \['jordan', 'polar_express'\]"):
        MuonConfig(polynomial="cubic")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"momentum=1.0.*momentum must lie in \[0, 1\)"):
        MuonConfig(momentum=1.0)


def test_no_matrices_is_no_work() -> None:
    Muon({}, MuonConfig()).step()
