"""Rotary positions, gains and exclusive attention."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fairway.model.attention import AttentionConfig, CausalSelfAttention, rope_table
from fairway.runtime.kernels import exclude_self, rotate


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 20))
@settings(max_examples=20, deadline=None)
def test_scores_depend_on_the_distance_alone(first: int, second: int, shift: int) -> None:
    cos, sin = rope_table(64, 8, 10_000.0, 64, torch.float64)
    q, k = torch.randn(2, 1, 1, 1, 12, dtype=torch.float64).unbind(0)

    def score(a: int, b: int) -> torch.Tensor:
        turned = [rotate(x, cos[i : i + 1], sin[i : i + 1]) for x, i in ((q, a), (k, b))]
        return (turned[0] * turned[1]).sum()

    # Angles are float32: at position 60 they are known to 4e-6.
    assert torch.allclose(score(first, second), score(first + shift, second + shift), atol=2e-4)


def test_rotation_keeps_lengths_and_leaves_the_other_channels_alone() -> None:
    x = torch.randn(2, 5, 3, 12)
    y = rotate(x, *rope_table(5, 8, 10_000.0, 64, torch.float32))
    assert torch.allclose(y.norm(dim=-1), x.norm(dim=-1), atol=1e-5)
    assert torch.equal(y[..., 8:], x[..., 8:])
    assert torch.equal(y[:, 0], x[:, 0])  # the first position does not turn


def test_past_the_training_length_the_slowest_channel_turns_no_further_than_in_training() -> None:
    table = [rope_table(n, 16, 10_000.0, 64, torch.float64) for n in (64, 256)]
    angle = [torch.atan2(sin, cos)[-1, -1].item() for cos, sin in table]
    assert angle[1] <= 256 / 64 * angle[0]
    assert abs(angle[1] / angle[0] - 255 / 63 / 4) < 1e-6
    short, same = (rope_table(n, 16, 10_000.0, 64, torch.float64)[0] for n in (16, 64))
    assert torch.equal(short, same[:16])  # within it, a position's angle is fixed


def test_an_exclusive_output_has_no_part_along_its_own_value() -> None:
    y, v = torch.randn(2, 7, 4, 8), torch.randn(2, 7, 2, 8)
    out = exclude_self(y, v)
    own = v.repeat_interleave(2, dim=2)
    assert (out * own).sum(-1).abs().max() < 1e-5
    assert torch.allclose(exclude_self(out, v), out, atol=1e-6)


def test_exclusive_attention_is_finite_where_a_token_sees_only_itself() -> None:
    """Its output is zero there; dividing by its length was NaN in #819."""
    config = AttentionConfig(num_heads=4, num_kv_heads=2)
    layer = CausalSelfAttention(32, config, exclusive=True)
    x = torch.randn(2, 5, 32, requires_grad=True)
    y = layer(x, rope_table(5, 8, 10_000.0, 64, torch.float32))
    assert y[:, 0].abs().max() < 1e-5
    y.sum().backward()
    assert x.grad is not None
    assert bool(torch.isfinite(x.grad).all())
    zero = exclude_self(torch.ones(1, 1, 2, 4), torch.zeros(1, 1, 1, 4))
    assert bool(torch.isfinite(zero).all())


def test_queries_grow_with_the_gain_and_nothing_else() -> None:
    layer = CausalSelfAttention(32, AttentionConfig(num_heads=4, num_kv_heads=2), exclusive=False)
    rope, x = rope_table(6, 8, 10_000.0, 64, torch.float32), torch.randn(1, 6, 32)
    with torch.no_grad():
        layer.gain.zero_()
        y = layer(x, rope)
        v = layer.value(x).unflatten(-1, (2, -1)).repeat_interleave(2, dim=2)
        mean = v.cumsum(1) / torch.arange(1, 7).view(1, -1, 1, 1)
    assert torch.allclose(y, layer.output(mean.flatten(2)), atol=1e-5)  # no gain: a plain mean
