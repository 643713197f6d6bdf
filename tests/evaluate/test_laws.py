"""What must hold of every way to learn: one test for each law, one parameter for each predictor."""

import copy

import pytest
import torch
from torch import Tensor

from fairway.evaluate.config import EvaluateConfig, make_predictor
from fairway.evaluate.learners.mixture import MixturePredictor
from fairway.evaluate.learners.tilt import TiltPredictor
from fairway.evaluate.predictor import Predictor
from fairway.proof.bitstream import in_step

from .models import (
    BOS,
    CONFIGS,
    CONTEXT,
    LENGTHS,
    VOCAB,
    by_position,
    chunks_of,
    nats_in_order,
    plans_of,
    text,
    tiny_model,
)

every_predictor = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
TOKENS, STARTS = text(LENGTHS)


def everything(predictor: Predictor) -> dict[str, Tensor]:
    """All that a predictor holds: what it learned, and the model's weights."""
    base = predictor
    while isinstance(base, MixturePredictor | TiltPredictor):
        base = base.base
    weights = base.model.state_dict()  # type: ignore[attr-defined]
    return {k: v.clone() for k, v in (predictor.state_dict() | weights).items()}


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@every_predictor
def test_scoring_leaves_no_trace(config: EvaluateConfig) -> None:
    chunks = chunks_of(config, TOKENS, STARTS)
    predictor = make_predictor(tiny_model(), config)
    nats_in_order(predictor, chunks[:2])
    before = everything(predictor)
    first, other, again = (predictor.score(chunks[i]) for i in (2, 1, 2))
    assert torch.equal(first, again)
    assert len(other) == chunks[1].num_targets
    assert equal(before, everything(predictor))


@every_predictor
def test_what_the_caller_holds_is_never_changed(config: EvaluateConfig) -> None:
    model = tiny_model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    nats_in_order(make_predictor(model, config), chunks_of(config, TOKENS, STARTS))
    assert equal(before, model.state_dict())
    assert all(parameter.requires_grad for parameter in model.parameters())


@every_predictor
def test_changing_a_token_changes_no_earlier_nats(config: EvaluateConfig) -> None:
    """In the order of scoring, to the last bit: a leak of 1e-7 is a leak."""
    before, order = by_position(config, TOKENS, STARTS), scoring_order(config)
    for position in (30, 60):
        edited, later = TOKENS.clone(), order[position - 1 :]
        later = later[TOKENS[later] != BOS]
        edited[later] = (edited[later] + 3) % (VOCAB - 2) + 2
        after = by_position(config, edited, STARTS)
        first, rest = order[: position - 1] - 1, order[position - 1 :] - 1
        assert torch.equal(before[first], after[first])
        assert not torch.equal(before[rest], after[rest])


def scoring_order(config: EvaluateConfig) -> Tensor:
    """(n - 1,) positions of all targets, document after document as they are scored."""
    if config.order == "file":
        return torch.arange(1, len(TOKENS))
    by_document: dict[tuple[int, int], list[int]] = {}
    for plan in plans_of(config, TOKENS, STARTS):
        for place, window in zip(plan.places, plan.windows, strict=True):
            own = by_document.setdefault((plan.batch, place), [])
            own += range(window.score_from, window.stop)
    return torch.tensor([p for document in sorted(by_document) for p in by_document[document]])


@every_predictor
def test_every_token_is_scored_once(config: EvaluateConfig) -> None:
    scored = [
        position
        for plan in plans_of(config, TOKENS, STARTS)
        for window in plan.windows
        for position in range(window.score_from, window.stop)
    ]
    assert sorted(scored) == list(range(1, len(TOKENS)))


@every_predictor
def test_a_decoder_reads_the_very_nats_and_they_are_distributions(
    config: EvaluateConfig,
) -> None:
    chunks = chunks_of(config, TOKENS, STARTS)
    scorer, decoder = (make_predictor(tiny_model(), config) for _ in range(2))
    for chunk in chunks:
        claimed, plan = scorer.score(chunk), chunk.plan
        read, offsets = torch.zeros(plan.num_targets, dtype=torch.float64), plan.offsets
        reader = decoder.reader(plan)
        for members in in_step(plan, rows=3, pad_to=CONTEXT):
            windows = [plan.windows[i] for i in members]
            history = windows[0].score_from - windows[0].start
            texts = [chunk.texts[i] for i in members]
            reader.start(members, torch.stack([one[:history] for one in texts]))
            for step in range(max(window.num_targets for window in windows)):
                log_probs = reader.log_probs()
                came = torch.zeros(len(members), dtype=torch.long)
                for row, (i, one) in enumerate(zip(members, texts, strict=True)):
                    if step < windows[row].num_targets:
                        came[row] = one[history + step]
                        read[offsets[i] + step] = -log_probs[row, came[row]]
                        total = log_probs[row].exp().sum().item()
                        assert abs(total - 1.0) < 1e-9
                reader.push(came)
        # One pass and one token at a time round differently; how much, the activations' type says.
        atol = 2e-5 if config.precision == "float32" else 0.1
        assert torch.allclose(claimed, read, atol=atol, rtol=0)
        scorer.learn(chunk)
        decoder.learn(chunk)
    assert equal(everything(scorer), everything(decoder))


@every_predictor
def test_learning_goes_on_from_a_saved_state_as_if_never_interrupted(
    config: EvaluateConfig,
) -> None:
    chunks = chunks_of(config, TOKENS, STARTS)
    through = make_predictor(tiny_model(), config)
    expected = nats_in_order(through, chunks)
    for stop in (len(chunks) // 2,):
        first = make_predictor(tiny_model(), config)
        nats_in_order(first, chunks[:stop])
        state = copy.deepcopy(first.state_dict())
        second = make_predictor(tiny_model(), config)
        second.load_state_dict(state)
        found = nats_in_order(second, chunks[stop:])
        assert all(torch.equal(a, b) for a, b in zip(found, expected[stop:], strict=True))


@pytest.mark.parametrize("name", [name for name in CONFIGS if not name.startswith("frozen")])
def test_learning_changes_later_nats(name: str) -> None:
    config = CONFIGS[name]
    frozen = EvaluateConfig(
        context=config.context, stride=config.stride, documents=config.documents
    )
    learned = by_position(config, TOKENS, STARTS)
    assert not torch.allclose(learned, by_position(frozen, TOKENS, STARTS), atol=1e-4)


@pytest.mark.parametrize("name", ["sgd", "mixture", "mixture of documents", "adamw"])
def test_learning_pays_on_text_that_repeats_itself(name: str) -> None:
    tokens, starts = text([120, 120, 120])
    config = CONFIGS[name]
    frozen = EvaluateConfig(
        context=config.context, stride=config.stride, documents=config.documents
    )
    saved = by_position(frozen, tokens, starts) - by_position(config, tokens, starts)
    assert saved[180:].mean() > 0.1
