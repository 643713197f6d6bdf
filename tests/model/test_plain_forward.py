"""The forward pass, held against a second one that was written apart from it."""

import numpy as np
import pytest
import torch

from fairway.evaluate.settled import settled_model
from fairway.model.gpt import GPT
from fairway.recipes.registry import RECIPES, recipe, smoke

from .plain_forward import forward


def weights_of(model: GPT) -> dict[str, np.ndarray]:
    return {k: v.numpy().astype(np.float64) for k, v in model.shipped_state_dict().items()}


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("length", [11, 40])  # within and beyond the training context
def test_every_recipe_computes_what_its_description_says(name: str, length: int) -> None:
    config = smoke(recipe(name)).model
    generator = torch.Generator().manual_seed(5)
    model = GPT(config)
    for weight in model.state_dict().values():  # gates, gains and scales too have something to say
        weight.add_(0.3 * torch.randn(weight.shape, generator=generator))
    tokens = torch.randint(2, config.vocab_size, (length,), generator=generator)
    tokens[[0, 7]] = config.bos_id
    found = forward(config, weights_of(model), tokens.numpy(), length)
    with torch.inference_mode():
        expected = settled_model(model.eval())(tokens[None])[0]
    assert np.abs(found).max() > 0.1
    np.testing.assert_allclose(found, expected.numpy(), rtol=0, atol=1e-11)
