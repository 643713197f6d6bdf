import dataclasses
import json

import pytest
import torch

from fairway.evaluate.bpb import Score
from fairway.evaluate.config import make_predictor
from fairway.evaluate.diagnostic import (
    WARNING,
    AdaptThenScore,
    IllegalScore,
    StreamHints,
    adapt_then_score,
)
from fairway.evaluate.learners.sgd import Sgd
from fairway.evaluate.learners.tilt import StreamTilt, Tilt

from .models import CONFIGS, chunks_of, text, tiny_model, val_text


def test_the_number_says_what_it_is_in_every_form() -> None:
    score = IllegalScore(1.1295, Score(nats=100.0, num_tokens=50, num_bytes=100))
    for shown in (str(score), repr(score), f"{score}", f"{score:>200}", "%s" % score, str([score])):  # noqa: UP031
        assert WARNING in shown
        assert "honest" in shown
    assert WARNING in json.dumps(score.to_json())
    assert WARNING == "illegal: learned from a token before scoring it"
    assert not isinstance(score, Score)
    assert not hasattr(score, "bits_per_byte")


def test_it_flatters_and_leaves_the_model_alone() -> None:
    model, (tokens, _) = tiny_model(), text((40, 40))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    sgd = Sgd(lr=0.1, epochs=4, schedule="constant", batch_sequences=8)
    config = AdaptThenScore(sgd=sgd, context=16, stride=8)
    found = adapt_then_score(model, config, val_text(tokens))
    assert found.illegal_bits_per_byte < found.honest.bits_per_byte - 0.05
    assert all(torch.equal(before[name], now) for name, now in model.state_dict().items())
    assert found.honest.num_tokens == len(tokens) - 1

    nothing = dataclasses.replace(config, sgd=dataclasses.replace(sgd, lr=0.0))
    same = adapt_then_score(model, nothing, val_text(tokens))
    assert same.illegal_bits_per_byte == same.honest.bits_per_byte


def test_its_settings_are_those_of_390() -> None:
    sgd = AdaptThenScore().sgd
    assert (sgd.epochs, sgd.lr, sgd.momentum, sgd.frozen_blocks) == (8, 0.002, 0.9, 2)
    assert (AdaptThenScore().stride, AdaptThenScore().context) == (32, 2048)


def test_hints_in_stream_order_differ_where_scoring_goes_another_way() -> None:
    """In file order, one document after the other, the two are one."""
    (tokens, starts), tilt = text((30, 44, 36)), Tilt(order=3, threshold=0.5)
    config = dataclasses.replace(CONFIGS["adapters"], rows=1, tilt=tilt)
    stream = val_text(tokens, starts)
    longest_first = dataclasses.replace(config, order="longest_first")
    found = StreamHints().found(tiny_model(), longest_first, stream)
    assert found.illegal_bits_per_byte != found.honest.bits_per_byte
    with pytest.raises(ValueError, match="with a tilt"):
        StreamHints().found(tiny_model(), CONFIGS["adapters"], stream)


def test_what_knows_the_whole_text_beforehand_cannot_be_proved() -> None:
    tokens, starts = text((30, 44))
    chunk = chunks_of(CONFIGS["adapters"], tokens, starts)[0]
    base = make_predictor(tiny_model(), CONFIGS["adapters"])
    with pytest.raises(ValueError, match="nothing to prove"):
        StreamTilt(base, Tilt(), tokens).reader(chunk.plan)  # type: ignore[arg-type]
