"""The walk that scores, as nats by position."""

import torch

from fairway.audit.model_scorer import positions, walk
from fairway.evaluate.chunks import Chunk, plan_chunks
from fairway.evaluate.frozen import Frozen
from fairway.model.attention import AttentionConfig
from fairway.model.gpt import GPT
from fairway.model.model_config import ModelConfig
from fairway.tokens.val_text import ValText

PLANS = plan_chunks(97, 16, 8, 32)


def test_every_target_has_its_position_once() -> None:
    places = torch.cat([positions(plan) for plan in PLANS])
    assert places.tolist() == list(range(1, 97))


class Counts(Frozen):
    """Every target costs its own position."""

    def score(self, chunk: Chunk) -> torch.Tensor:
        return positions(chunk.plan).double()


def test_nats_stand_where_their_tokens_do_and_nan_where_nobody_scored() -> None:
    attention = AttentionConfig(num_heads=2, num_kv_heads=2, rope_dims=4)
    config = ModelConfig(
        vocab_size=40, model_dim=16, num_layers=1, attention=attention, train_context=16
    )
    tokens, counts = torch.zeros(97, dtype=torch.long), torch.ones(96, dtype=torch.long)
    text = ValText(tokens, counts, ())
    nats = walk(Counts(GPT(config)), PLANS, text)
    assert torch.equal(nats, torch.arange(1.0, 97.0, dtype=torch.float64))
    assert walk(Counts(GPT(config)), PLANS[:1], text).isnan().sum() == 96 - 32
