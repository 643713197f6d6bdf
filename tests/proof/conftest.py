"""Tiny models and texts that the tests of this folder share."""

import pytest
import torch
from torch import Tensor

from fairway.model.attention import AttentionConfig
from fairway.model.gpt import GPT, ModelConfig, SkipConfig

VOCAB = 24


def tiny_model(**changes) -> GPT:
    """Two narrow blocks with weights large enough to have opinions."""
    torch.manual_seed(7)
    settings = {
        "vocab_size": VOCAB,
        "model_dim": 16,
        "num_layers": 2,
        "attention": AttentionConfig(num_heads=2, num_kv_heads=1),
        "train_context": 16,
        "skips": SkipConfig(),
    }
    model = GPT(ModelConfig(**(settings | changes)))
    for parameter in model.parameters():
        if parameter.ndim == 2:
            torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


def text(lengths: list[int], seed: int = 0) -> tuple[Tensor, list[int]]:
    """Documents of these lengths, each opened by BOS (1), and where they start."""
    generator = torch.Generator().manual_seed(seed)
    tokens, starts = [], []
    for length in lengths:
        starts.append(len(tokens))
        # A small alphabet that repeats itself, so that learning pays.
        body = torch.randint(2, 9, (length - 1,), generator=generator)
        tokens += [1, *body.tolist()]
    return torch.tensor(tokens), starts


@pytest.fixture
def model() -> GPT:
    return tiny_model()
