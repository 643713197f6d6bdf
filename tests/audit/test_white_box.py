"""Each probe from the inside finds what it is for, and accuses nobody else."""

from dataclasses import replace

import torch
from torch import Tensor

from fairway.audit.causality import causality_result
from fairway.audit.model_scorer import walk
from fairway.audit.white_box import (
    ObservedPredictor,
    compare_inside_chunk,
    fingerprint,
    probe_distributions,
)
from fairway.evaluate.chunks import Chunk, cut_chunk, plan_chunks
from fairway.evaluate.config import EvaluateConfig, make_predictor
from fairway.evaluate.frozen import Frozen
from fairway.evaluate.learners.mixture import Mixture
from fairway.evaluate.learners.sgd import Sgd
from fairway.evaluate.learners.tilt import Tilt
from fairway.model.attention import AttentionConfig
from fairway.model.gpt import GPT
from fairway.model.model_config import ModelConfig
from fairway.tokens.val_text import ValText

VOCAB, BOS = 40, 1
TOKENS = torch.randint(2, VOCAB, (97,), generator=torch.Generator().manual_seed(0))
TOKENS[0] = TOKENS[50] = BOS
BYTES = torch.ones(96, dtype=torch.long)
CONFIG = EvaluateConfig(
    context=16,
    stride=8,
    ttt=Sgd(chunk_tokens=32, epochs=1, lr=0.1),
    mixture=Mixture(),
    tilt=Tilt(order=3, threshold=0.5),
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


def observe(predictor, held: GPT | None = None) -> ObservedPredictor:
    observed = ObservedPredictor(predictor, 97, held.state_dict if held else dict)
    walk(observed, ONE_ROW, ValText(TOKENS, BYTES, ()))
    return observed


def test_an_honest_learner_passes_every_probe() -> None:
    held = model()
    observed = observe(make_predictor(held, CONFIG), held)
    assert observed.order_result().ok
    assert observed.weights_result(untouched=True).ok
    last = ONE_ROW[-1]
    comparison = compare_inside_chunk(observed, last, TOKENS.numpy(), VOCAB, always, seed=0)
    assert not comparison.leaks
    assert len(comparison.compared) > 20
    assert probe_distributions(observed, last, TOKENS, 4, 16, always).ok


def test_learning_before_scoring_is_seen_in_the_order() -> None:
    observed = ObservedPredictor(make_predictor(model(), CONFIG), 97)
    chunks = [cut_chunk(plan, ValText(TOKENS, BYTES, ())) for plan in ONE_ROW]
    observed.learn(chunks[0])
    for chunk in chunks:
        observed.score(chunk)
    result = observed.order_result()
    assert not result.ok
    assert "before it is scored" in result.findings[0].said


def test_a_target_scored_twice_or_never_is_seen() -> None:
    observed = ObservedPredictor(Frozen(model()), 97)
    for plan in (ONE_ROW[0], ONE_ROW[1], ONE_ROW[1]):
        observed.score(cut_chunk(plan, ValText(TOKENS, BYTES, ())))
    said = [finding.said for finding in observed.order_result().findings]
    assert any("scored 2 times" in text or "scored 0 times" in text for text in said)


class LearnsWhileScoring(Frozen):
    def score(self, chunk: Chunk) -> Tensor:
        nats = super().score(chunk)
        with torch.no_grad():
            self.model.embed.weight[chunk.texts[0][-1]] += 0.1
        return nats

    def state_dict(self) -> dict[str, Tensor]:
        return dict(self.model.state_dict())


def test_scoring_that_leaves_a_trace_is_seen() -> None:
    result = observe(LearnsWhileScoring(model())).weights_result(untouched=True)
    assert not result.ok
    assert "changed the predictor's state" in result.findings[0].said


def test_a_model_that_the_evaluation_changed_is_seen() -> None:
    held = model()
    before = fingerprint(held.state_dict())
    observed = observe(make_predictor(held, CONFIG), held)
    with torch.no_grad():
        held.embed.weight[3, 3] += 1e-6
    assert not observed.weights_result(fingerprint(held.state_dict()) == before).ok


class LooksAhead(Frozen):
    """Nats that depend a little on the last token of its chunk."""

    def score(self, chunk: Chunk) -> Tensor:
        return super().score(chunk) + 1e-9 * float(chunk.texts[-1][-1])


def test_a_glance_at_the_end_of_the_chunk_is_seen() -> None:
    comparison = compare_inside_chunk(
        LooksAhead(model()), PLANS[1], TOKENS.numpy(), VOCAB, always, seed=0
    )
    result = causality_result([comparison], normalized=True)
    assert not result.ok
    assert "changed the nats of token" in result.findings[0].said


class Discount(Frozen):
    """Scores one per cent below what its distributions say."""

    def score(self, chunk: Chunk) -> Tensor:
        return super().score(chunk) * 0.99


def test_a_score_that_no_distribution_gives_is_seen() -> None:
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
