"""What is predicted without allocating is what a step then allocates."""

from dataclasses import replace
from itertools import accumulate

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from fairway.model.gpt import GPT
from fairway.recipes.recipe import Recipe
from fairway.recipes.registry import recipe, smoke
from fairway.train import memory
from fairway.train.memory import (
    predict_step,
    require_memory,
    surely_fits,
)
from fairway.train.param_groups import build_optimizers

CPU, ROWS, CONTEXT = torch.device("cpu"), 4, 128


def small(name: str) -> Recipe:
    """The recipe at a sixteenth of its width, so that a step takes a moment."""
    chosen = smoke(recipe(name))
    batch = replace(chosen.train.batch, rows=ROWS, context=CONTEXT)
    model = replace(chosen.model, model_dim=128, train_context=CONTEXT)
    return replace(chosen, model=model, train=replace(chosen.train, batch=batch))


def allocated(chosen: Recipe) -> int:
    """Bytes at the peak of a second step, from the allocator's own events."""
    model = GPT(chosen.model).train()
    optimizers = build_optimizers(model, chosen.train.optimizer, muon_dtype=torch.float32)
    average = [parameter.detach().clone() for parameter in model.parameters()]
    tokens = torch.randint(2, chosen.model.vocab_size, (ROWS, CONTEXT))

    def step() -> None:
        model.loss(tokens, tokens).backward()
        optimizers.step()
        optimizers.zero_grad()

    step()
    states = [
        value
        for state in optimizers.adamw.state.values()  # pyright: ignore[reportOptionalMemberAccess]
        for value in state.values()
        if isinstance(value, torch.Tensor)
    ]
    held = [*model.state_dict().values(), *average, *states, *optimizers.state_dict().values()]
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in held}
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        step()
    events = found.profiler.kineto_results.events()  # type: ignore[union-attr]
    changes = [(e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]"]  # pyright: ignore
    running = accumulate(nbytes for _, nbytes in sorted(changes, key=lambda change: change[0]))
    return sum(storages.values()) + max(running)


@pytest.mark.parametrize("name", ["pr1413", "pr2135", "naive_baseline"])
def test_a_step_takes_what_was_predicted(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # A GPU's attention keeps no scores; here the library's own, which keeps none either.
    monkeypatch.setattr("fairway.model.attention.attend", memory.attend_plain)
    chosen = small(name)
    predicted = predict_step(chosen.model, chosen.train, torch.float32, rows=ROWS, context=CONTEXT)
    assert predicted.peak == pytest.approx(allocated(chosen), rel=0.1)
    assert predicted.kept < predicted.peak


def test_too_little_memory_is_said_before_allocating_with_what_fits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chosen = small("pr1413")
    one, two = (
        predict_step(chosen.model, chosen.train, torch.float32, rows=rows, context=CONTEXT)
        for rows in (1, 2)
    )
    monkeypatch.setattr(memory, "free_bytes", lambda device: two.peak + 1)
    with pytest.raises(
        ValueError, match=r"too little memory.*--train.batch.rows 2 .*micro_batches 4"
    ):
        require_memory(chosen.model, chosen.train, CPU, torch.float32)
    monkeypatch.setattr(memory, "free_bytes", lambda device: one.kept)
    with pytest.raises(ValueError, match="not even one row"):
        require_memory(chosen.model, chosen.train, CPU, torch.float32)
    assert not surely_fits(chosen.model, chosen.train, CPU)
    monkeypatch.setattr(memory, "free_bytes", lambda device: 1 << 40)
    assert "on each rank" in require_memory(chosen.model, chosen.train, CPU, torch.float32)
    assert surely_fits(chosen.model, chosen.train, CPU)
