import subprocess
import sys

import pytest

from fairway.model.blank import blank, num_params
from fairway.model.gpt import GPT
from fairway.recipes.registry import RECIPES, recipe

OPEN_A_MODEL = """
import sys
from fairway.model.blank import blank
from fairway.recipes.registry import recipe
for name in sys.argv[1:]:
    blank(recipe(name).model)
print("torch._dynamo" in sys.modules)
"""


def test_it_has_the_shapes_of_the_model_and_no_memory():
    config = recipe("pocket").model
    without, built = blank(config), GPT(config)
    assert {n: t.shape for n, t in without.state_dict().items()} == {
        n: t.shape for n, t in built.state_dict().items()
    }
    assert all(tensor.is_meta for tensor in without.parameters())
    assert num_params(config) == sum(t.numel() for t in built.shipped_state_dict().values())


@pytest.mark.slow
def test_no_recipe_s_shapes_need_the_compiler():
    answer = subprocess.run(
        [sys.executable, "-c", OPEN_A_MODEL, *RECIPES], capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "False"
