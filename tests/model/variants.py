"""Small models with every option of the lineage on, one by one and together, and fixed weights."""

import math
from dataclasses import replace

import torch

from fairway.model.attention import AttentionConfig, GateConfig
from fairway.model.depth import Loop
from fairway.model.embedding import EmbeddingConfig, NgramTableConfig, ValueEmbeddingConfig
from fairway.model.gpt import GPT
from fairway.model.mlp import MlpConfig
from fairway.model.model_config import ModelConfig, ParallelConfig, SkipConfig

BOS = 1
ATTENTION = AttentionConfig(num_heads=4, num_kv_heads=2)
PLAIN = ModelConfig(
    vocab_size=61,
    model_dim=32,
    num_layers=5,
    attention=ATTENTION,
    mlp=MlpConfig(ratio=2.0),
    train_context=64,
)
NGRAMS = (NgramTableConfig(buckets=17, dim=8), NgramTableConfig(order=3, buckets=19, dim=32))
LOOP = Loop(first=1, last=3, extra_passes=2)


def _attention(**changes) -> ModelConfig:
    return replace(PLAIN, attention=replace(ATTENTION, **changes))


def _embedding(**changes) -> ModelConfig:
    return replace(PLAIN, embedding=EmbeddingConfig(**changes))


VARIANTS: dict[str, ModelConfig] = {
    "plain": PLAIN,
    "one head per KV head": _attention(num_kv_heads=4),
    "partial rotary": _attention(rope_dims=4),
    "exclusive": _attention(exclusive_layers=2),
    "head gates": _attention(gate=GateConfig(window=6, scale=0.5)),
    "within documents": _attention(within_documents=True),
    "n-gram tables": _embedding(ngrams=NGRAMS),
    "smear v1": _embedding(smear="v1"),
    "smear v2": _embedding(smear="v2", smear_window=6),
    "value embedding": _embedding(value=ValueEmbeddingConfig(dim=8, layers=(2, 4))),
    "narrow embedding": _embedding(dim=16),
    "skips": replace(PLAIN, skips=SkipConfig()),
    "gated skips": replace(PLAIN, skips=SkipConfig(gated=True)),
    "loop": replace(PLAIN, loop=LOOP),
    "loop with skips": replace(PLAIN, loop=LOOP, skips=SkipConfig(gated=True)),
    "shared parallel": replace(PLAIN, parallel=ParallelConfig(start=3)),
    "two lanes": replace(PLAIN, parallel=ParallelConfig(start=3, form="lanes")),
    "layer scale": replace(PLAIN, layer_scale=True),
    "no residual mix": replace(PLAIN, residual_mix=False),
    "no cap": replace(PLAIN, logit_softcap=None),
    "untied": replace(PLAIN, tied=False),
    "sloped": replace(PLAIN, mlp=MlpConfig(ratio=2.0, slope=0.5)),
    "gated mlp": replace(PLAIN, mlp=MlpConfig(ratio=2.0, activation="swiglu")),
    "stretched rotary": replace(PLAIN, train_context=16),
    "extra heads": replace(PLAIN, extra_heads=2),
    "as #414": replace(
        PLAIN,
        attention=replace(ATTENTION, rope_dims=4, exclusive_layers=2),
        embedding=EmbeddingConfig(
            ngrams=NGRAMS[:1], smear="v1", value=ValueEmbeddingConfig(dim=8, layers=(3, 4))
        ),
        skips=SkipConfig(),
        layer_scale=True,
    ),
    "as #1855": replace(
        PLAIN,
        attention=replace(
            ATTENTION,
            rope_dims=4,
            exclusive_layers=5,
            gate=GateConfig(window=6, scale=0.5),
            within_documents=True,
        ),
        mlp=MlpConfig(ratio=2.0, slope=0.5),
        embedding=EmbeddingConfig(smear="v2", smear_window=6),
        skips=SkipConfig(gated=True),
        loop=LOOP,
        parallel=ParallelConfig(start=3, form="lanes"),
        layer_scale=True,
    ),
}


def build(config: ModelConfig) -> GPT:
    """A model whose weights follow from their names alone, on every machine and version."""
    model = GPT(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            phase = sum(ord(letter) for letter in name)
            wave = torch.arange(parameter.numel(), dtype=torch.float64)
            wave = torch.sin(wave * (1.0 + math.sqrt(phase)) + phase)
            size = parameter.size(-1) ** -0.5 if parameter.ndim > 1 else 0.5
            parameter.copy_((size * wave).view_as(parameter))
            if parameter.ndim < 2:
                parameter.add_(1.0)  # scales and gains are about 1, as in a trained model
    return model.eval()


def tokens(rows: int = 2, length: int = 40, vocab_size: int = 61) -> torch.Tensor:
    """(rows, length) ids; every row begins a document, and another one begins within it."""
    places = torch.arange(rows * length).view(rows, length)
    ids = 2 + (places * places * 7 + places * 3) % (vocab_size - 2)
    ids[:, 0] = BOS
    ids[:, 23] = BOS
    return ids
