"""Each probe from the inside finds what it is for, and accuses nobody else."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from fairway.audit.white_box import (
    Watched,
    changed_after,
    fingerprint,
    probe_chunk_causality,
    probe_distributions,
    walk,
)
from fairway.evaluate.chunks import Chunk, cut_chunk, plan_chunks
from fairway.evaluate.config import EvaluateConfig, make_predictor
from fairway.evaluate.frozen import Frozen
from fairway.evaluate.learners.mixture import Mixture
from fairway.evaluate.learners.sgd import Sgd
from fairway.model.attention import AttentionConfig
from fairway.model.gpt import GPT, ModelConfig
from fairway.tokens.val_text import ValText

VOCAB, BOS = 40, 1
TOKENS = torch.randint(2, VOCAB, (97,), generator=torch.Generator().manual_seed(0))
TOKENS[0] = TOKENS[50] = BOS
BYTES = torch.ones(96, dtype=torch.long)
CONFIG = EvaluateConfig(
    context=16, stride=8, ttt=Sgd(chunk_tokens=32, epochs=1, lr=0.1), mixture=Mixture()
)
PLANS = plan_chunks(97, 16, 8, 32)
ONE_ROW = [replace(plan, rows=(0,) * len(plan.rows)) for plan in PLANS]


def model() -> GPT:
    torch.manual_seed(0)
    attention = AttentionConfig(num_heads=2, num_kv_heads=2, rope_dims=4)
    made = GPT(
        ModelConfig(
            vocab_size=VOCAB, model_dim=16, num_layers=2, attention=attention, train_context=16
        )
    )
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return made


def always() -> bool:
    return True


def watch(predictor, held: GPT | None = None) -> Watched:
    watched = Watched(predictor, 97, held.state_dict if held else dict)
    walk(watched, ONE_ROW, TOKENS, BYTES)
    return watched


def test_an_honest_learner_passes_every_probe() -> None:
    held = model()
    watched = watch(make_predictor(held, CONFIG), held)
    assert watched.order_result().ok
    assert watched.weights_result(untouched=True).ok
    last = ONE_ROW[-1]
    found, edits = probe_chunk_causality(watched, last, TOKENS, VOCAB, BOS, always, seed=0)
    assert not found
    assert edits > 20
    assert probe_distributions(watched, last, TOKENS, 4, 16, always).ok


def test_learning_before_pricing_is_seen_in_the_order() -> None:
    watched = Watched(make_predictor(model(), CONFIG), 97)
    chunks = [cut_chunk(plan, ValText(TOKENS, BYTES, ())) for plan in ONE_ROW]
    watched.learn(chunks[0])
    for chunk in chunks:
        watched.score(chunk)
    result = watched.order_result()
    assert not result.ok
    assert "before it is priced" in result.findings[0].said


def test_a_target_priced_twice_or_never_is_seen() -> None:
    watched = Watched(Frozen(model()), 97)
    for plan in (ONE_ROW[0], ONE_ROW[1], ONE_ROW[1]):
        watched.score(cut_chunk(plan, ValText(TOKENS, BYTES, ())))
    said = [finding.said for finding in watched.order_result().findings]
    assert any("priced 2 times" in text or "priced 0 times" in text for text in said)


class LearnsWhileScoring(Frozen):
    def score(self, chunk: Chunk) -> Tensor:
        nats = super().score(chunk)
        with torch.no_grad():
            self.model.embed.weight[chunk.texts[0][-1]] += 0.1
        return nats

    def state_dict(self) -> dict[str, Tensor]:
        return dict(self.model.state_dict())


def test_scoring_that_leaves_a_trace_is_seen() -> None:
    result = watch(LearnsWhileScoring(model())).weights_result(untouched=True)
    assert not result.ok
    assert "changed the predictor's state" in result.findings[0].said


def test_a_model_that_the_evaluation_changed_is_seen() -> None:
    held = model()
    before = fingerprint(held.state_dict())
    watched = watch(make_predictor(held, CONFIG), held)
    with torch.no_grad():
        held.embed.weight[3, 3] += 1e-6
    assert not watched.weights_result(fingerprint(held.state_dict()) == before).ok


class LooksAhead(Frozen):
    """A price that depends a little on the last token of its chunk."""

    def score(self, chunk: Chunk) -> Tensor:
        return super().score(chunk) + 1e-9 * float(chunk.texts[-1][-1])


def test_a_glance_at_the_end_of_the_chunk_is_seen() -> None:
    found, _ = probe_chunk_causality(
        LooksAhead(model()), PLANS[1], TOKENS, VOCAB, BOS, always, seed=0
    )
    assert found
    assert "changed the price of token" in found[0].said


class Discount(Frozen):
    """Scores one per cent below what its distributions say."""

    def score(self, chunk: Chunk) -> Tensor:
        return super().score(chunk) * 0.99


def test_a_price_that_no_distribution_gives_is_seen() -> None:
    result = probe_distributions(Discount(model()), PLANS[1], TOKENS, 4, 16, always)
    assert not result.ok
    assert "before the token is known" in result.findings[0].said


class TooMuch(Frozen):
    """Distributions that sum to more than one, in scoring and in reading alike."""

    def reader(self, plan):
        inner = super().reader(plan)
        honest = inner.log_probs
        inner.log_probs = lambda: honest() + 0.001  # type: ignore[method-assign]
        return inner


def test_a_distribution_that_sums_to_more_is_seen() -> None:
    result = probe_distributions(TooMuch(model()), PLANS[1], TOKENS, 4, 16, always)
    assert any("sums to 1.001" in finding.said for finding in result.findings)


@pytest.mark.parametrize("cut", [1, 40, 96])
def test_an_edit_changes_all_that_follows_and_keeps_the_documents(cut: int) -> None:
    edited = changed_after(TOKENS, cut, VOCAB, BOS, seed=3)
    assert torch.equal(edited[:cut], TOKENS[:cut])
    same = edited[cut:] == TOKENS[cut:]
    assert torch.equal(same, TOKENS[cut:] == BOS)
    assert edited.min() >= 1
    assert edited.max() < VOCAB
