"""Pauses come between documents, and the model learns from finished ones alone."""

import dataclasses

import torch

from fairway.evaluate.learners.phased import Phased, PhasedPredictor

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
    seen: list[list[int]] = []
    learn = predictor.learner.learn
    predictor.learner.learn = lambda texts, rate: (
        seen.append([len(t) for t in texts]),
        learn(texts, rate),
    )  # type: ignore[method-assign]
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
    assert [n for part in seen for n in part] == [22, 3, 31]  # each with the BOS that ends it
    assert predictor.finished == set(range(6))


def test_a_model_that_keeps_documents_apart_learns_them_in_shared_sequences() -> None:
    attention = dataclasses.replace(tiny_model().config.attention, within_documents=True)
    config = CONFIGS["phased"]
    assert isinstance(config.ttt, Phased)
    predictor = PhasedPredictor(
        tiny_model(attention=attention), config.ttt, context=CONTEXT, rows=3
    )
    parts = predictor._joined([torch.tensor([1, 5, 6, 1]), torch.tensor([1, 7, 1])])
    assert [part.tolist() for part in parts] == [[1, 5, 6, 1, 7, 1]]


def test_between_pauses_its_adapters_learn_and_nothing_where_it_has_none() -> None:
    assert Phased(adapters=ADAPTERS).between_pauses() == ADAPTERS
    assert Phased(adapters=None).between_pauses() is None
    assert SGD.between_pauses() is SGD
