"""No step waits for the device: neither of training, averaging and reporting, nor at test time.

The model lies on PyTorch's meta device, whose tensors have no values, so whatever would wait for
one fails; transfers between host and device are watched beside it.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fairway.average import build_average
from fairway.evaluate.chunks import cut_chunk
from fairway.evaluate.config import plan_text
from fairway.model.gpt import GPT
from fairway.quant.qat import late_rounding
from fairway.recipes.recipe import Recipe
from fairway.recipes.registry import RECIPES, recipe, smoke
from fairway.runtime.device import send
from fairway.runtime.distributed import Ranks
from fairway.tokens.val_text import ValText
from fairway.train import divergence
from fairway.train.clock import StepClock
from fairway.train.loop import Batch, training_steps
from fairway.train.param_groups import build_optimizers

META = torch.device("meta")
READS = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "item", "equal")
INDEXED = ("index.Tensor", "index_put")


class Waits(TorchDispatchMode):
    """Counts what would keep the host waiting for the device, by the operation's name."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.operations = 0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs, name = dict(kwargs or {}), str(func)
        self.operations += 1
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        devices = {tensor.device for tensor in tensors}
        if META in devices and any(read in name for read in READS):
            self.found.append(name)
        if "_to_copy" in name or name.startswith("aten.copy_"):
            target = kwargs.get("device") or args[0].device
            asynchronous = kwargs.get("non_blocking") or (len(args) > 2 and args[2])
            if devices | {torch.device(target)} >= {META, torch.device("cpu")} and not asynchronous:
                self.found.append(name)
        if any(part in name for part in INDEXED) and len(devices) > 1:
            self.found.append(f"{name} by an index on the host")
        return func(*args, **kwargs)


@pytest.fixture
def on_meta(monkeypatch: pytest.MonkeyPatch) -> None:
    """The little that the meta device lacks and CUDA has."""
    fused = "_get_fused_kernels_supported_devices"
    monkeypatch.setattr(sys.modules["torch.optim.optimizer"], fused, lambda: ["meta"])

    class Arrived:
        def synchronize(self) -> None:
            pass

    def to_host(values: Tensor) -> tuple[Tensor, Arrived]:
        return torch.zeros(values.shape), Arrived()

    monkeypatch.setattr(divergence, "to_host", to_host)


def host_batches(chosen: Recipe) -> Iterator[Batch]:
    batch = chosen.train.batch
    while True:
        tokens = torch.randint(2, chosen.model.vocab_size, (batch.rows, batch.context + 1))
        yield tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()


@pytest.mark.parametrize("name", list(RECIPES))
def test_no_training_step_waits_for_the_device(name: str, on_meta: None) -> None:
    chosen = smoke(recipe(name), steps=4)
    with META:
        model = GPT(chosen.model).train()
    optimizers = build_optimizers(model, chosen.train.optimizer, muon_dtype=torch.bfloat16)
    average = build_average(model, chosen.average)
    rounding = late_rounding(chosen.round_from, chosen.round_as or chosen.quant)
    steps = training_steps(
        model,
        host_batches(chosen),
        chosen.train,
        optimizers,
        StepClock(4),
        milestones=rounding,
        compute_dtype=torch.bfloat16,
    )
    with Waits() as waits:
        taken = []
        for step in steps:
            average.update(step)
            taken.append(step)
    assert not waits.found
    # What is reported has come by itself: of the step before the one that is under way.
    assert [step.arrived and step.arrived.step for step in taken] == [None, None, 1, 2]


LEARNING = {repr(recipe(n).evaluate.ttt): n for n in RECIPES if recipe(n).evaluate.ttt is not None}


@pytest.mark.parametrize("name", LEARNING.values())
def test_no_step_at_test_time_waits_for_the_device(name: str) -> None:
    """Everything that learns, after each chunk that it learns from."""
    chosen = smoke(recipe(name))
    with META:
        model = GPT(chosen.model).eval()
    config = chosen.evaluate.resolved(chosen.model.train_context)
    tokens = torch.randint(2, chosen.model.vocab_size, (400,))
    starts = [0, 60, 90, 150, 230, 300, 350]
    tokens[starts] = chosen.model.bos_id
    text = ValText(tokens, torch.ones(399, dtype=torch.long), tuple(starts))
    predictor = config.learner.predictor(model, config, seed=0, ranks=Ranks())
    with Waits() as waits:
        for plan in plan_text(config, text):
            predictor.learn(cut_chunk(plan, text))
    assert waits.operations > 100
    assert not waits.found


def test_what_waits_is_noticed() -> None:
    """What the tests above rely on."""
    on_host, on_device = torch.arange(3), torch.zeros(3, device=META)
    with Waits() as waits:
        send(on_host, META)
        assert not waits.found
        on_host.to(META)
        on_device.copy_(on_host)
        on_device[on_host]
        for read in (on_device.sum().item, on_device.nonzero, on_device.cpu):
            with pytest.raises((RuntimeError, NotImplementedError)):
                read()
    assert len(waits.found) == 6
