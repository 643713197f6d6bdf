from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from fairway.runtime.tensor_file import write_tensors
from fairway.train.param_groups import OptimizerConfig, Optimizers, build_optimizers
from fairway.train.train_state import (
    checkpoint_state,
    read_train_state,
    restore,
    save_checkpoint,
)


class Tied(nn.Module):
    def __init__(self, width: int = 3) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, width)
        self.head = nn.Linear(width, 5, bias=False)
        self.head.weight = self.embed.weight
        self.register_buffer("seen", torch.tensor(7))
        self.register_buffer("scratch", torch.zeros(2), persistent=False)


def stepped(width: int = 3) -> tuple[Tied, Optimizers]:
    model = Tied(width)
    optimizers = build_optimizers(model, OptimizerConfig())
    model.head(model.embed(torch.arange(5))).square().mean().backward()
    optimizers.step()
    return model, optimizers


def test_a_checkpoint_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    model, optimizers = stepped()
    extra = {"average.count": torch.tensor(3), "average.embed": torch.ones(2, 2, dtype=torch.half)}
    saved = checkpoint_state(
        model, optimizers, step=12, extra=extra, spent_seconds=1.5, batches=[1, 2]
    )
    path = tmp_path / "checkpoint.safetensors"
    save_checkpoint(path, saved)
    loaded = read_train_state(path)
    assert loaded.step == 12
    assert loaded.numbers == {"format": 2, "step": 12, "spent_seconds": 1.5, "batches": [1, 2]}
    assert loaded.tensors.keys() == saved.tensors.keys()
    assert all(torch.equal(loaded.tensors[name], saved.tensors[name]) for name in saved.tensors)
    assert loaded.extra.keys() == extra.keys()
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_checkpoint_is_a_copy_that_training_does_not_move() -> None:
    model, optimizers = stepped()
    saved = checkpoint_state(model, optimizers, step=1)
    before = {name: tensor.clone() for name, tensor in saved.tensors.items()}
    optimizers.step()
    assert all(torch.equal(before[name], tensor) for name, tensor in saved.tensors.items())


def test_restoring_brings_back_weights_buffers_and_random_numbers() -> None:
    model, optimizers = stepped()
    saved = checkpoint_state(model, optimizers, step=1)
    expected = torch.rand(3)
    other, fresh = stepped()
    other.get_buffer("seen").zero_()
    restore(saved, other, fresh)
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(other.embed.weight, model.embed.weight)
    assert other.head.weight is other.embed.weight
    assert other.get_buffer("seen") == 7


def test_a_checkpoint_of_another_model_is_refused_before_anything_is_changed() -> None:
    saved = checkpoint_state(*stepped(width=4), step=1)
    model, optimizers = stepped()
    before = model.embed.weight.detach().clone()
    with pytest.raises(
        ValueError, match=r"embed.weight is \(5, 4\) in the checkpoint and \(5, 3\)"
    ):
        restore(saved, model, optimizers)
    model.extra = nn.Parameter(torch.ones(1))
    with pytest.raises(ValueError, match=r"differ in extra; resume with the recipe it is from"):
        restore(saved, model, optimizers)
    assert torch.equal(model.embed.weight, before)


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"not at all")
    with pytest.raises(ValueError, match="is not a checkpoint"):
        read_train_state(path)
    save_file({"w": torch.ones(1)}, path)
    with pytest.raises(ValueError, match="is not a checkpoint"):
        read_train_state(path)
    write_tensors(path, {"w": torch.ones(1)}, {"format": 1})
    with pytest.raises(ValueError, match="has checkpoint format 1, this version reads 2"):
        read_train_state(path)


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_checkpoint(path, checkpoint_state(*stepped(), step=1))
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match="its checksum is wrong"):
        read_train_state(path)
