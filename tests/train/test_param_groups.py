import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fairway.model.attention import AttentionConfig, GateConfig
from fairway.model.embedding import EmbeddingConfig, NgramTableConfig, ValueEmbeddingConfig
from fairway.model.gpt import GPT
from fairway.model.mlp import MlpConfig
from fairway.model.model_config import ModelConfig, ParallelConfig, SkipConfig
from fairway.train.muon import Muon, MuonConfig
from fairway.train.param_groups import (
    AdamWGroup,
    Claim,
    OptimizerConfig,
    Optimizers,
    build_optimizers,
    group_parameters,
)


class Tiny(nn.Module):
    """One parameter of every kind that a language model has."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(11, 6)
        self.blocks = nn.ModuleList([nn.Linear(6, 6), nn.Linear(6, 6)])
        self.skip_weights = nn.Parameter(torch.ones(2, 6))
        self.gain = nn.Parameter(torch.tensor(1.0))
        self.head = nn.Linear(6, 11, bias=False)

    def loss(self, tokens: Tensor, targets: Tensor) -> Tensor:
        x = self.embed(tokens)
        for block, skip in zip(self.blocks, self.skip_weights, strict=True):
            x = skip * x + torch.tanh(block(x))
        return F.cross_entropy((self.gain * self.head(x)).flatten(0, 1), targets.flatten())


def backward(model: Tiny) -> None:
    tokens = torch.arange(10).view(2, 5)
    model.loss(tokens, (tokens * 3) % 11).backward()


def test_every_parameter_has_exactly_one_optimizer() -> None:
    model = Tiny()
    groups = group_parameters(model)
    assert {group: sorted(members) for group, members in groups.items()} == {
        "matrices": ["blocks.0.weight", "blocks.1.weight"],
        "embed": ["embed.weight"],
        "head": ["head.weight"],
        "scalars": ["blocks.0.bias", "blocks.1.bias", "gain", "skip_weights"],
    }


def test_a_model_with_every_option_leaves_no_parameter_out() -> None:
    config = ModelConfig(
        vocab_size=32,
        model_dim=32,
        num_layers=3,
        attention=AttentionConfig(num_heads=2, num_kv_heads=1, gate=GateConfig()),
        mlp=MlpConfig(activation="swiglu"),
        embedding=EmbeddingConfig(
            dim=16,
            ngrams=(NgramTableConfig(buckets=64, dim=8),),
            smear="v2",
            value=ValueEmbeddingConfig(dim=8, layers=(1,)),
        ),
        skips=SkipConfig(gated=True),
        parallel=ParallelConfig(start=2, form="lanes"),
        tied=False,
        extra_heads=1,
    )
    model = GPT(config)
    groups = group_parameters(model)
    names = [name for members in groups.values() for name in members]
    assert sorted(names) == sorted(name for name, _ in model.named_parameters())
    # Matrices are what multiplies activations; gates, mixes and routes are vectors side by side.
    linear = {f"{n}.weight" for n, m in model.blocks.named_modules() if isinstance(m, nn.Linear)}
    assert {n.removeprefix("blocks.") for n in groups["matrices"] if "blocks" in n} == linear
    assert sorted(groups["head"]) == ["head.weight"]
    # What projects a table, and what predicts further ahead, are matrices as any other (#254).
    assert {n for n in groups["matrices"] if "blocks" not in n} == {
        "embed_up.weight",
        "head_down.weight",
        "extra_heads.0.weight",
        "ngrams.0.project.weight",
        "value_embed.project.weight",
    }
    assert sorted(groups["embed"]) == [
        "embed.weight",
        "ngrams.0.table.weight",
        "value_embed.table.weight",
    ]


def test_the_error_names_the_parameter_that_nobody_steps() -> None:
    model = Tiny()
    model.adapter = nn.Linear(6, 4, bias=False)
    with pytest.raises(ValueError, match=r"adapter.weight \(4, 6\) belongs to no group.*claims"):
        build_optimizers(model, OptimizerConfig())
    model.adapter.requires_grad_(False)
    build_optimizers(model, OptimizerConfig())


def test_the_error_names_the_parameter_that_two_groups_step() -> None:
    greedy = Claim(group="head", names=("embed*",), num_dims=(2,))
    config = OptimizerConfig(claims=(*OptimizerConfig().claims, greedy))
    with pytest.raises(ValueError, match=r"embed.weight \(11, 6\) belongs to embed and head"):
        build_optimizers(Tiny(), config)


def test_setting_scales_from_the_peak_and_not_from_the_last_value() -> None:
    optimizers = build_optimizers(Tiny(), OptimizerConfig(muon=MuonConfig(lr=0.02)))
    muon = optimizers.matrix_optimizer
    assert isinstance(muon, Muon)
    assert optimizers.adamw is not None
    for _ in range(2):
        optimizers.set(lr_scale=0.5, momentum=0.9, decay_scale=0.25)
    assert (muon.lr, muon.momentum) == (0.01, 0.9)
    assert [group["lr"] for group in optimizers.adamw.param_groups] == [0.015, 0.004, 0.01]
    assert optimizers.adamw.param_groups[0]["weight_decay"] == pytest.approx(0.085 / 4)
    optimizers.set()
    assert (muon.lr, muon.momentum) == (0.02, 0.99)


def test_adamw_groups_step_as_the_library_does() -> None:
    """Fused and grouped as ours, against one plain optimizer per group."""
    model, other = Tiny(), Tiny()
    config = OptimizerConfig(scalars=AdamWGroup(lr=0.1, weight_decay=0.3))
    ours = build_optimizers(model, config)
    plain = [
        torch.optim.AdamW(
            list(members.values()),
            lr=getattr(config, group).lr,
            weight_decay=getattr(config, group).weight_decay,
            betas=config.betas,
            eps=config.eps,
        )
        for group, members in group_parameters(other).items()
        if group != "matrices"
    ]
    for _ in range(2):  # gradients stay: both models see the same ones
        if model.gain.grad is None:
            backward(model)
            backward(other)
        ours.step()
        for optimizer in plain:
            optimizer.step()
    for name, parameter in model.named_parameters():
        if name not in ours.matrix_optimizer.parameters:
            torch.testing.assert_close(parameter, dict(other.named_parameters())[name])


def train(model: Tiny, optimizers: Optimizers, steps: int) -> None:
    for _ in range(steps):
        backward(model)
        optimizers.step()
        optimizers.zero_grad()


def test_saved_optimizers_continue_exactly() -> None:
    straight, resumed = Tiny(), Tiny()
    first = build_optimizers(straight, OptimizerConfig())
    train(straight, first, 2)
    weights = {name: p.detach().clone() for name, p in straight.named_parameters()}
    state = {name: tensor.clone() for name, tensor in first.state_dict().items()}
    train(straight, first, 2)

    second = build_optimizers(resumed, OptimizerConfig())
    train(resumed, second, 1)  # any other state is forgotten
    resumed.load_state_dict(weights)
    second.load_state_dict(state)
    train(resumed, second, 2)
    for name, parameter in straight.named_parameters():
        assert torch.equal(parameter, dict(resumed.named_parameters())[name])


def test_state_of_another_model_is_refused() -> None:
    model = Tiny()
    optimizers = build_optimizers(model, OptimizerConfig())
    train(model, optimizers, 1)
    state = optimizers.state_dict()
    with pytest.raises(ValueError, match=r"saved AdamW state of other, which AdamW does not step"):
        optimizers.load_state_dict({**state, "adamw.other.step": torch.tensor(1.0)})
    gone = {key: tensor for key, tensor in state.items() if not key.startswith("adamw.gain")}
    with pytest.raises(ValueError, match="no saved AdamW state of gain"):
        optimizers.load_state_dict(gone)


def test_state_before_the_first_step_is_restored_too() -> None:
    model = Tiny()
    optimizers = build_optimizers(model, OptimizerConfig())
    state = {name: tensor.clone() for name, tensor in optimizers.state_dict().items()}
    train(model, optimizers, 1)
    optimizers.load_state_dict(state)
    assert optimizers.adamw is not None
    assert not optimizers.adamw.state
