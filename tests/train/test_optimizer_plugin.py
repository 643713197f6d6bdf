"""An optimizer of matrices from the user's own package: it trains, and its state is kept."""

import sys
from collections.abc import Iterator
from itertools import islice, repeat
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fairway.artifact.config_json import config_from_json, config_to_json, plugins_of
from fairway.runtime import plugins
from fairway.runtime.plugins import load_plugin
from fairway.train.config import BatchConfig, TrainConfig, build_clock
from fairway.train.loop import training_steps
from fairway.train.param_groups import OptimizerConfig, build_optimizers
from fairway.train.schedule import MomentumWarmup, Warmdown
from fairway.train.train_state import checkpoint_state, read_train_state, restore, save_checkpoint

SOURCE = '''
from dataclasses import dataclass

import torch

from fairway.train.muon import MatrixOptimizerConfig


@dataclass(frozen=True, kw_only=True)
class LionConfig(MatrixOptimizerConfig):
    """The sign of the momentum (Chen et al. 2023)."""

    lr: float = 0.01

    def build(self, matrices, *, dtype, ranks):
        return Lion(matrices, self)


class Lion:
    def __init__(self, matrices, config):
        self.parameters, self.config = dict(matrices), config
        self.buffers = {name: torch.zeros_like(p) for name, p in matrices.items()}
        self.lrs = []

    def set(self, *, lr_scale=1.0, momentum=None, decay_scale=1.0):
        self.lr = lr_scale * self.config.lr
        self.lrs.append(self.lr)

    @torch.no_grad()
    def step(self):
        for name, matrix in self.parameters.items():
            self.buffers[name].lerp_(matrix.grad, 0.1)
            matrix.sub_(self.lr * self.buffers[name].sign())

    def state_dict(self):
        return {f"{name}.average": tensor for name, tensor in self.buffers.items()}

    def load_state_dict(self, state):
        for name, tensor in self.buffers.items():
            tensor.copy_(state[f"{name}.average"])
'''
TOKENS = torch.arange(12).view(2, 6)


@pytest.fixture
def lion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TrainConfig]:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(plugins, "_loaded", {})
    (tmp_path / "my_optimizer.py").write_text(SOURCE)
    yield TrainConfig(
        steps=8,
        batch=BatchConfig(rows=2, context=6),
        optimizer=OptimizerConfig(muon=load_plugin("my_optimizer:LionConfig")(lr=0.02)),
        warmdown=Warmdown(fraction=0.5),
    )
    sys.modules.pop("my_optimizer", None)


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(13, 8)
        self.blocks = nn.ModuleList([nn.Linear(8, 8, bias=False) for _ in range(2)])

    def loss(self, tokens: Tensor, targets: Tensor) -> Tensor:
        x = self.embed(tokens)
        for block in self.blocks:
            x = x + torch.tanh(block(x))
        return F.cross_entropy((x @ self.embed.weight.T).flatten(0, 1), targets.flatten())


def train(model: Tiny, config: TrainConfig, steps: int, first_step: int = 0, saved=None):
    optimizers = build_optimizers(model, config.optimizer)
    if saved is not None:
        restore(saved, model, optimizers)
    batches = repeat((TOKENS, (3 * TOKENS + 1) % 13))
    run = training_steps(
        model, batches, config, optimizers, build_clock(config), first_step=first_step
    )
    losses = [step.loss.item() for step in islice(run, steps)]
    return losses, optimizers


def test_it_trains_under_the_schedule(lion: TrainConfig) -> None:
    losses, optimizers = train(Tiny(), lion, 8)
    assert losses[-1] < 0.8 * losses[0]
    rates = optimizers.matrix_optimizer.lrs  # type: ignore[attr-defined]
    assert rates[-8:] == pytest.approx([0.02] * 5 + [0.015, 0.01, 0.005])
    assert set(optimizers.parameters) == {name for name, _ in Tiny().named_parameters()}


def test_a_checkpoint_continues_it_exactly(lion: TrainConfig, tmp_path: Path) -> None:
    straight, resumed = Tiny(), Tiny()
    train(straight, lion, 8)
    model = Tiny()
    _, optimizers = train(model, lion, 5)
    save_checkpoint(tmp_path / "c.safetensors", checkpoint_state(model, optimizers, step=5))
    saved = read_train_state(tmp_path / "c.safetensors")
    assert "optimizer.muon.blocks.0.weight.average" in saved.tensors
    train(resumed, lion, 3, saved.step, saved)
    for a, b in zip(straight.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)


def test_it_is_written_by_its_full_name_and_the_built_in_one_without(lion: TrainConfig) -> None:
    data = config_to_json(lion)
    assert data["optimizer"]["muon"] == {"type": "my_optimizer:LionConfig", "lr": 0.02}
    assert config_from_json(TrainConfig, data) == lion
    assert [plugin.name for plugin in plugins_of(lion)] == ["my_optimizer:LionConfig"]
    plain = config_to_json(TrainConfig(steps=1))
    assert "type" not in plain["optimizer"]["muon"]
    assert config_from_json(TrainConfig, plain) == TrainConfig(steps=1)
    plugins._loaded.clear()
    with pytest.raises(ValueError, match=r"optimizer.muon: .*--plugin my_optimizer:LionConfig"):
        config_from_json(TrainConfig, data)


def test_a_warmup_of_a_momentum_that_it_lacks_is_refused(lion: TrainConfig) -> None:
    with pytest.raises(ValueError, match=r"momentum of LionConfig\(lr=0.02\), which has none"):
        TrainConfig(steps=1, optimizer=lion.optimizer, momentum_warmup=MomentumWarmup(steps=2))
