"""The step of every recipe is one graph for each form that it takes, and none breaks."""

import pytest
import torch
from torch._dynamo.utils import counters

from fairway.model.gpt import GPT
from fairway.recipes.recipe import Recipe
from fairway.recipes.registry import RECIPES, recipe, smoke


def forms(chosen: Recipe) -> set[tuple[bool, int]]:
    """(whether loops run, context) of every step that the recipe takes."""
    curriculum = chosen.train.batch.context_curriculum
    contexts = {chosen.train.batch.context}
    if curriculum is not None:
        contexts = {value for _, value in curriculum.stages}
    loops = {False, True} if chosen.model.loop is not None else {True}
    return {(active, context) for active in loops for context in contexts}


@pytest.mark.parametrize("name", list(RECIPES))
def test_a_step_is_one_graph_for_each_form(name: str) -> None:
    chosen = smoke(recipe(name))
    torch.compiler.reset()
    counters.clear()
    model = GPT(chosen.model).train()
    loss = torch.compile(model.loss, fullgraph=True, dynamic=False, backend="eager")
    steps = sorted(forms(chosen))
    for _ in range(2):  # the second time nothing is traced any more
        for model.loops_active, context in steps:
            tokens = torch.randint(2, chosen.model.vocab_size, (2, context + 1))
            model.rope(context, torch.empty(0))
            loss(tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()).backward()
    assert counters["stats"]["unique_graphs"] == len(steps)
    assert not counters["graph_break"]
