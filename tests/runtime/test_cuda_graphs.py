import pytest
import torch
from torch import Tensor

from fairway.model.gpt import GPT
from fairway.recipes.registry import recipe, smoke
from fairway.runtime.cuda_graphs import graphed_loss

ROWS, CONTEXT = 2, 16


def test_a_processor_keeps_the_loss_as_it_is() -> None:
    model = GPT(smoke(recipe("pocket")).model)
    assert graphed_loss(model, model.loss, ROWS, CONTEXT, 300) == model.loss


def test_it_is_recorded_on_random_tokens_with_every_weight_and_in_the_models_mode(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As far as it can be seen without a GPU: what the recorder is handed."""
    with torch.device("meta"):
        model = GPT(smoke(recipe("pocket")).model).eval()
    handed = {}

    def record(module, sample, **settings):
        handed.update(module=module, sample=sample, settings=settings)
        return module

    def parameters():
        class Placed:
            device = torch.device("cuda", 0)

        yield Placed()

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", record)
    monkeypatch.setattr(Tensor, "to", lambda tensor, device: tensor)
    monkeypatch.setattr(model, "parameters", parameters)
    graphed = graphed_loss(model, lambda tokens, targets: targets, ROWS, CONTEXT, 300)
    tokens, targets = handed["sample"]
    assert tokens.shape == (ROWS, CONTEXT)
    assert len(tokens.unique()) > 20
    assert targets.data_ptr() != tokens.data_ptr()
    module = handed["module"]
    assert not module.training
    assert {name.removeprefix("model.") for name in module.state_dict()} == set(model.state_dict())
    assert graphed(1, 2) == 2  # type: ignore[arg-type]


@pytest.mark.gpu
def test_replayed_steps_learn_what_plain_ones_do() -> None:
    device, after = torch.device("cuda"), []
    source = torch.Generator().manual_seed(1)
    texts = torch.randint(300, (4, ROWS, CONTEXT + 1), generator=source).to(device)
    for graphed in (False, True):
        torch.manual_seed(0)
        model = GPT(smoke(recipe("pr1413")).model).to(device).eval()
        loss = model.loss
        if graphed:
            loss = graphed_loss(model, loss, ROWS, CONTEXT, 300)
            assert all(p.grad is None for p in model.parameters())
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for tokens in texts:
            optimizer.zero_grad()
            loss(tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()).backward()
            optimizer.step()
        after.append([p.detach().clone() for p in model.parameters()])
    for plain, replayed in zip(*after, strict=True):
        torch.testing.assert_close(replayed, plain, rtol=1e-5, atol=1e-6)
