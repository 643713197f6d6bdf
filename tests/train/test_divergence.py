"""A step that broke something is named, with what broke first."""

import pytest
import torch

from fairway.train.divergence import DivergenceWatch, TrainingDiverged

CPU = torch.device("cpu")
FINITE = torch.tensor(2.0)


def watch(**weights: torch.Tensor) -> DivergenceWatch:
    return DivergenceWatch({"a": torch.ones(2), "b": torch.ones(2)} | weights, CPU)


def test_finite_steps_pass_and_leave_nothing_waiting() -> None:
    one = watch()
    one.check(1, FINITE, torch.ones(2), rate=1.0)
    one.settle(in_flight=0)
    assert not one.records


@pytest.mark.parametrize(
    ("weights", "loss", "norms", "tensor", "words"),
    [
        ({}, FINITE, [1.0, float("nan")], "b", "the gradient of b"),
        ({}, torch.tensor(float("inf")), [1.0, 1.0], None, "the loss is inf.*only the loss"),
        ({"b": torch.tensor([float("nan")])}, FINITE, [float("nan")] * 2, "b", "the weight b"),
    ],
)
def test_the_error_names_the_step_the_tensor_and_the_rates(
    weights: dict, loss: torch.Tensor, norms: list[float], tensor: str | None, words: str
) -> None:
    with pytest.raises(TrainingDiverged, match=rf"in step 7: .*{words}.*stood at 0.5 of") as caught:
        watch(**weights).check(7, loss, torch.tensor(norms), rate=0.5)
    assert (caught.value.step, caught.value.tensor) == (7, tensor)
