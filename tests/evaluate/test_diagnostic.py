import dataclasses
import json

import torch

from fairway.evaluate.bpb import Score
from fairway.evaluate.diagnostic import WARNING, AdaptThenScore, IllegalScore, adapt_then_score
from fairway.evaluate.learners.sgd import Sgd

from .models import text, tiny_model, val_text


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
