"""Pauses come between documents, and the model learns from finished ones alone."""

import dataclasses

import pytest
import torch

from fairway.evaluate.learners.documents import DocumentPredictor
from fairway.evaluate.learners.phased import Phased, PhasedPredictor, targets_at_pauses

from ..models import (
    ADAPTERS,
    CONFIGS,
    CONTEXT,
    SGD,
    chunks_of,
    text,
    tiny_model,
)

TOKENS, STARTS = text((21, 2, 30, 17, 9, 26))


def test_a_pause_learns_only_from_documents_that_have_ended() -> None:
    config = CONFIGS["phased"]
    assert isinstance(config.ttt, Phased)
    predictor = PhasedPredictor(tiny_model(), config.ttt, context=CONTEXT, rows=3)
    seen: list[tuple[list[int], float]] = []
    learn = predictor.learner.learn_packed
    predictor.learner.learn_packed = lambda piece, rate: (  # type: ignore[method-assign]
        seen.append((piece.tolist(), rate)),
        learn(piece, rate),
    )
    before = predictor.model.embed.weight.clone()
    moved_at = []
    for chunk in chunks_of(config, TOKENS, STARTS):
        predictor.score(chunk)
        predictor.learn(chunk)
        if not torch.equal(before, predictor.model.embed.weight):
            before = predictor.model.embed.weight.clone()
            moved_at.append((chunk.plan.rows, chunk.plan.is_last))
    # Three documents run side by side: the pause due after two comes when all three have ended,
    # the one due after four would come at the very end, where nothing is left to gain.
    assert moved_at == [((2,), False)]
    # The two shortest, each with the BOS that ends it, in one piece and a rest nobody learns from.
    shortest = torch.cat((TOKENS[21:24], TOKENS[:22]))
    assert seen == [(shortest[: CONTEXT + 1].tolist(), 1.0)]
    assert predictor.finished == set(range(6))


def test_after_a_pause_adapters_begin_anew() -> None:
    config = CONFIGS["phased"]
    assert isinstance(config.ttt, Phased)
    predictor = PhasedPredictor(tiny_model(), config.ttt, context=CONTEXT, rows=3)
    assert isinstance(predictor.local, DocumentPredictor)
    before = {key: down.detach().clone() for key, down in predictor.local.bank.down.items()}
    for chunk in chunks_of(config, TOKENS, STARTS):
        predictor.learn(chunk)
        if predictor.phases_done:
            break
    drift = [(before[key] - down).abs().max() for key, down in predictor.local.bank.down.items()]
    assert min(drift) > 0.05  # drawn, not learned: steps are a tenth of that


def test_a_pause_is_expected_to_learn_what_it_learns() -> None:
    config = CONFIGS["phased"]
    plans = [chunk.plan for chunk in chunks_of(config, TOKENS, STARTS)]
    expected = list(targets_at_pauses(plans, (2, 4), CONTEXT))
    assert [tokens for tokens in expected if tokens] == [CONTEXT]
    assert plans[expected.index(CONTEXT)].rows == (2,)


def test_a_pause_that_could_learn_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="set it to at least 16"):
        dataclasses.replace(
            CONFIGS["phased"], ttt=Phased(pauses=(2,), sgd=dataclasses.replace(SGD, chunk_tokens=8))
        )


def test_between_pauses_its_adapters_learn_and_nothing_where_it_has_none() -> None:
    assert Phased(adapters=ADAPTERS).between_pauses() == ADAPTERS
    assert Phased(adapters=None).between_pauses() is None
    assert SGD.between_pauses() is SGD
