import pytest
import torch
from torch import Tensor, nn

from fairway.average import Average, Ema, EmaConfig, LastWeights, Swa, SwaConfig, build_average
from fairway.train.loop import Step


class Tied(nn.Module):
    """Two names for one weight, and a buffer that is no float."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(4, 3)
        self.head = nn.Linear(3, 4)
        self.head.weight = self.embed.weight
        self.register_buffer("seen", torch.tensor(0))


def walk(model: Tied, average: Average, lr_scales: list[float]) -> list[Tensor]:
    """Give the model new weights at each step; returns the embeddings it had."""
    history = []
    for number, lr_scale in enumerate(lr_scales, start=1):
        with torch.no_grad():
            model.embed.weight.fill_(float(number))
            model.get_buffer("seen").add_(1)
        history.append(model.embed.weight.detach().clone())
        average.update(Step(number, 0.0, torch.zeros(()), lr_scale, 1))
    return history


def test_ema_is_the_sum_it_is_defined_by() -> None:
    model = Tied()
    first = model.embed.weight.detach().clone()
    ema = Ema(model, 0.9)
    history = walk(model, ema, [1.0] * 5)
    expected = 0.9**5 * first + sum(0.1 * 0.9 ** (4 - n) * w for n, w in enumerate(history))
    torch.testing.assert_close(ema.state_dict()["embed.weight"], expected)


def test_a_warm_start_forgets_the_first_weights_sooner() -> None:
    averages = {}
    for warm in (False, True):
        torch.manual_seed(0)
        model = Tied()
        average = Ema(model, 0.999, warm_start=warm)
        walk(model, average, [1.0] * 30)
        averages[warm] = average.state_dict()["embed.weight"].mean().item()
    assert averages[False] < 1.0  # one thirtieth of the way
    assert averages[True] > 20.0


def test_swa_is_the_plain_mean_of_the_steps_that_qualify() -> None:
    model = Tied()
    swa = Swa(model, every=2, lr_scale_below=0.5)
    history = walk(model, swa, [1.0, 1.0, 1.0, 0.4, 0.3, 0.2, 0.1, 0.05])
    expected = torch.stack([history[3], history[5], history[7]]).mean(0)
    torch.testing.assert_close(swa.state_dict()["embed.weight"], expected)


def test_swa_without_a_single_step_says_what_to_change() -> None:
    model = Tied()
    swa = Swa(model, every=50, lr_scale_below=0.2)
    walk(model, swa, [1.0] * 3)
    with pytest.raises(ValueError, match=r"multiple of 50 .* below 0.2 .*lower `every`"):
        swa.state_dict()


@pytest.mark.parametrize("config", [None, EmaConfig(), SwaConfig(every=1, lr_scale_below=2.0)])
def test_an_average_loads_into_the_model_it_is_of(config) -> None:
    model = Tied()
    average = build_average(model, config)
    walk(model, average, [1.0] * 2)
    state = average.state_dict()
    assert torch.equal(state["embed.weight"], state["head.weight"])
    assert state["seen"] == 2
    fresh = Tied()
    fresh.load_state_dict(state)
    assert torch.equal(fresh.head.weight, state["embed.weight"])


def test_the_average_is_float32_whatever_the_weights_are() -> None:
    model = nn.Linear(3, 3).bfloat16()
    for average in (Ema(model, 0.5), LastWeights(model)):
        assert {tensor.dtype for tensor in average.state_dict().values()} == {torch.float32}


def test_what_is_handed_out_does_not_move_on() -> None:
    model = Tied()
    for average in (Ema(model, 0.5), LastWeights(model)):
        before = average.state_dict()
        kept = {name: tensor.clone() for name, tensor in before.items()}
        walk(model, average, [1.0])
        assert all(torch.equal(before[name], kept[name]) for name in kept)


@pytest.mark.parametrize("config", [EmaConfig(warm_start=True), SwaConfig(every=1)])
def test_a_saved_average_continues_exactly(config) -> None:
    straight, resumed = Tied(), Tied()
    resumed.load_state_dict(straight.state_dict())
    first = build_average(straight, config)
    walk(straight, first, [0.1] * 3)
    saved = {name: tensor.clone() for name, tensor in first.checkpoint().items()}
    walk(straight, first, [0.1] * 2)

    second = build_average(resumed, config)
    second.restore(saved)
    walk(resumed, second, [0.1] * 2)
    for name, tensor in first.state_dict().items():
        if name != "seen":
            assert torch.equal(tensor, second.state_dict()[name])


def test_an_average_of_another_model_is_refused() -> None:
    with pytest.raises(ValueError, match=r"differ in count, .*weight.*resume with its recipe"):
        Ema(Tied(), 0.5).restore({})


@pytest.mark.parametrize(
    "build", [lambda: EmaConfig(decay=1.0), lambda: SwaConfig(every=0)], ids=["ema", "swa"]
)
def test_an_impossible_average_cannot_be_written(build) -> None:
    with pytest.raises(ValueError, match="must"):
        build()
