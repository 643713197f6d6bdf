"""A tilted model: the published numbers, and what must hold of it beside the laws of them all."""

from dataclasses import replace
from math import expm1
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fairway.evaluate.config import EvaluateConfig, make_predictor, plan_evaluation
from fairway.evaluate.frozen import Frozen
from fairway.evaluate.learners.mixture import Mixture, MixturePredictor
from fairway.evaluate.learners.tilt import StreamTilt, Tilt, TiltPredictor, tilt_logits

from ..models import (
    ADAPTERS,
    PLAIN,
    SGD,
    TILT,
    chunks_of,
    nats_in_order,
    plans_of,
    text,
    tiny_model,
)

TOKENS, STARTS = text((60, 50, 80))


def formula(nats: Tensor, hint_nats: Tensor, hit: Tensor, boost: Tensor) -> Tensor:
    """The price as #2135 states it, from the base model's; a boost of 0 where there is no hint."""
    return nats - boost * hit + torch.log1p(torch.exp(-hint_nats) * torch.expm1(boost))


@pytest.mark.parametrize("case", ["record", "order4"])
def test_prices_are_the_published_ones(shared: Path, case: str) -> None:
    golden = torch.load(shared / "vectors" / "tilt_pr2135.pt", weights_only=True)
    expected, tokens = golden[case], golden["tokens"]
    settings = {name: float(value) for name, value in expected["settings"].items()}
    config = Tilt(
        order=int(settings["TOKEN_ORDER"]),
        threshold=settings["TOKEN_THRESHOLD"],
        boost=settings["TOKEN_BOOST"],
    )
    hints, targets = config.hints(tokens), tokens[1:]
    some = hints >= 0
    assert torch.equal(some * config.boost, expected["boost"])
    base = golden["log_probs"].double()
    of_hint = base.gather(1, hints.clamp_min(0)[:, None])[:, 0]
    torch.testing.assert_close(of_hint[some].float(), expected["log_q_hint"][some])
    nats = -base.gather(1, targets[:, None])[:, 0]
    price = formula(nats, -of_hint, (hints == targets).double(), some.double() * config.boost)
    torch.testing.assert_close(price, expected["tilted_nll_float64"], rtol=0, atol=1e-9)

    # Ours is a distribution exactly; those float32 log-probabilities sum to one up to 1e-6.
    tilted = torch.log_softmax(tilt_logits(base.clone(), hints, config.boost), dim=-1)
    ours = -tilted.gather(1, targets[:, None])[:, 0]
    torch.testing.assert_close(ours, expected["tilted_nll_float64"], rtol=0, atol=2e-6)
    assert float(tilted.exp().sum(1).sub(1).abs().max()) < 1e-12
    normal = torch.log_softmax(base, dim=-1)
    nats = -normal.gather(1, targets[:, None])[:, 0]
    of_hint = normal.gather(1, hints.clamp_min(0)[:, None])[:, 0]
    price = formula(nats, -of_hint, (hints == targets).double(), some.double() * config.boost)
    torch.testing.assert_close(ours, price, rtol=0, atol=1e-12)


def test_scored_in_the_order_of_the_stream_hints_are_the_published_ones() -> None:
    """Chunk after chunk, across windows and documents, as if the text had been read in one go."""
    config = replace(PLAIN, ttt=SGD, documents=True, tilt=TILT)
    predictor = make_predictor(tiny_model(), config)
    assert isinstance(predictor, TiltPredictor)
    found = []
    for chunk in chunks_of(config, TOKENS, STARTS):
        found.append(predictor.hints_of(chunk))
        predictor.score(chunk)
        predictor.learn(chunk)
    assert torch.equal(torch.cat(found), TILT.hints(TOKENS))
    assert int((torch.cat(found) >= 0).sum()) > 20


def test_hints_help_with_what_repeats_and_cost_little_elsewhere() -> None:
    def nats(config: EvaluateConfig) -> float:
        predictor = make_predictor(tiny_model(), config)
        return float(torch.cat(nats_in_order(predictor, chunks_of(config, TOKENS, STARTS))).sum())

    assert nats(replace(PLAIN, tilt=TILT)) < 0.97 * nats(PLAIN)


def test_the_price_changes_and_the_lesson_does_not() -> None:
    states = []
    for tilt in (None, TILT):
        config = replace(PLAIN, ttt=SGD, tilt=tilt)
        predictor = make_predictor(tiny_model(), config)
        nats_in_order(predictor, chunks_of(config, TOKENS, STARTS))
        base = predictor.base if isinstance(predictor, TiltPredictor) else predictor
        states.append(base.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_documents_beside_each_other_give_each_other_no_hint() -> None:
    config = replace(PLAIN, ttt=ADAPTERS, documents=True, tilt=TILT)
    same = torch.cat((TOKENS[:60], TOKENS[:60], TOKENS[:60], TOKENS[:60]))
    predictor = make_predictor(tiny_model(), config)
    assert isinstance(predictor, TiltPredictor)
    by_document: dict[int, list[Tensor]] = {}
    for chunk in chunks_of(config, same, (0, 60, 120, 180)):
        hints, offsets = predictor.hints_of(chunk), chunk.plan.offsets
        for i, row in enumerate(chunk.plan.rows):
            by_document.setdefault(row, []).append(hints[offsets[i] : offsets[i + 1]])
        predictor.score(chunk)
        predictor.learn(chunk)
    first, second, third, fourth = (torch.cat(by_document[d]) for d in range(4))
    # Three rows: the fourth document begins when the first three have ended.
    assert torch.equal(first[:-1], second[:-1])
    assert torch.equal(first[:-1], third[:-1])
    right = fourth[3:] == same[184:]
    assert bool((right | (fourth[3:] == -1)).all())
    assert int(right.sum()) > 45
    assert int((first >= 0).sum()) < int(right.sum()) - 20


def test_a_lesson_skipped_is_a_gap_after_which_contexts_begin_anew() -> None:
    config = replace(PLAIN, ttt=replace(SGD, chunk_tokens=24), tilt=TILT)
    predictor = make_predictor(tiny_model(), config)
    assert isinstance(predictor, TiltPredictor)
    chunks = chunks_of(config, TOKENS, STARTS)
    predictor.score(chunks[0])
    predictor.learn(chunks[0])
    predictor.score(chunks[1])
    predictor.skip(chunks[1])
    assert predictor.hints_of(chunks[2])[:2].tolist() == [-1, -1]
    other = make_predictor(tiny_model(), config)
    other.load_state_dict(predictor.state_dict())
    assert torch.equal(other.score(chunks[2]), predictor.score(chunks[2]))


def test_the_published_form_knows_text_that_is_scored_later() -> None:
    config = replace(PLAIN, ttt=ADAPTERS, documents=True)
    tokens = torch.cat((TOKENS[:60], TOKENS[:60]))
    plans = plan_evaluation(config, len(tokens), (0, 60))
    edited = tokens.clone()
    edited[20:50] = (edited[20:50] + 3) % 20 + 2
    found = []
    for stream in (tokens, edited):
        predictor = StreamTilt(Frozen(tiny_model()), TILT, stream)
        hints = TILT.hints(stream)
        assert torch.equal(predictor.hints, hints)
        chunk = chunks_of(config, stream, (0, 60))[0]
        found.append(predictor.score(chunk)[: chunk.plan.offsets[1]])
        assert torch.equal(
            predictor.hints_of(chunk),
            torch.cat([hints[w.score_from - 1 : w.stop - 1] for w in chunk.plan.windows]),
        )
        with pytest.raises(ValueError, match=r"not decoded yet.*in the order of scoring"):
            predictor.reader(plans[0])
    assert torch.equal(found[0], found[1])  # the first document's own beginning is untouched


def test_a_tilt_goes_below_a_mixture() -> None:
    config = replace(PLAIN, ttt=SGD, tilt=TILT)
    predictor = TILT.wrap(Frozen(tiny_model(), 3))
    assert isinstance(predictor, TiltPredictor)
    plans = plans_of(config, TOKENS, STARTS)
    assert all(set(plan.rows) <= {0} for plan in plans)
    mixed = make_predictor(tiny_model(), replace(config, mixture=Mixture()))
    assert isinstance(mixed, MixturePredictor)
    assert isinstance(mixed.base, TiltPredictor)


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"order": 17}, "order=17"), ({"order": 1}, "order=1"), ({"threshold": 0.0}, "threshold=0.0"),
     ({"threshold": 1.5}, "threshold=1.5"), ({"boost": 0.0}, "set tilt=None")],
)  # fmt: skip
def test_what_cannot_be_is_refused(changes: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Tilt(**changes)


def test_one_hint_moves_a_distribution_as_stated() -> None:
    p = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    tilted = torch.softmax(tilt_logits(p.log()[None], torch.tensor([2]), 1.5), dim=-1)[0]
    total = 1 + 0.2 * expm1(1.5)
    expected = torch.tensor([0.5, 0.3, 0.2 * (1 + expm1(1.5))], dtype=torch.float64) / total
    torch.testing.assert_close(tilted, expected)
    none = tilt_logits(p.log()[None], torch.tensor([-1]), 1.5)
    assert torch.equal(none[0], p.log())
