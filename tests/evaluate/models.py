"""Tiny models, texts and predictors that the tests of this folder share."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from fairway.evaluate.chunks import (
    Chunk,
    ChunkPlan,
    cut_chunk,
    read_chunks,
)
from fairway.evaluate.config import EvaluateConfig, Mixture, make_predictor, plan_evaluation
from fairway.evaluate.learners.documents import DocumentAdapters
from fairway.evaluate.learners.phased import Phased
from fairway.evaluate.learners.sgd import Sgd
from fairway.evaluate.learners.tilt import Tilt
from fairway.evaluate.predictor import Predictor
from fairway.model.adapters import AdapterConfig
from fairway.model.attention import AttentionConfig
from fairway.model.gpt import GPT
from fairway.model.model_config import ModelConfig, SkipConfig
from fairway.tokens.val_text import ValText

VOCAB, CONTEXT, BOS = 24, 16, 1


def tiny_model(**changes) -> GPT:
    """Two narrow blocks with weights large enough to tell tokens apart."""
    settings = {
        "vocab_size": VOCAB,
        "model_dim": 16,
        "num_layers": 2,
        "attention": AttentionConfig(num_heads=2, num_kv_heads=1),
        "train_context": CONTEXT,
        "skips": SkipConfig(gated=True),
    }
    model = GPT(ModelConfig(**(settings | changes)))
    generator = torch.Generator().manual_seed(7)
    for parameter in model.parameters():
        if parameter.ndim == 2:
            parameter.data.normal_(std=0.3, generator=generator)
    return model.eval()


def text(lengths: Sequence[int], seed: int = 0) -> tuple[Tensor, list[int]]:
    """Documents of these lengths, each opened by BOS, and where they start.

    They share phrases and use few ids, so that learning from one helps with the next.
    """
    generator = torch.Generator().manual_seed(seed)
    phrase = torch.randint(2, 9, (12,), generator=generator)
    starts, parts, position = [], [], 0
    for length in lengths:
        body = torch.randint(2, 9, (length - 1,), generator=generator)
        for begin in range(4, length - 14, 20):
            body[begin : begin + 12] = phrase
        starts.append(position)
        parts += [torch.tensor([BOS]), body]
        position += length
    return torch.cat(parts), starts


ADAPTERS = DocumentAdapters(
    adapters=AdapterConfig(rank=2, alpha=4.0, targets=("query", "key", "value", "mlp", "head")),
    lr=0.01,
)
SGD = Sgd(chunk_tokens=24, epochs=2, lr=0.1, batch_sequences=2)
TILT = Tilt(order=4, threshold=0.6, boost=1.5)
PAUSED = replace(SGD, epochs=1, chunk_tokens=CONTEXT)
PLAIN = EvaluateConfig(context=CONTEXT, stride=4, rows=3)

CONFIGS: dict[str, EvaluateConfig] = {
    "frozen": PLAIN,
    "frozen documents": replace(PLAIN, documents=True),
    "frozen cached": replace(PLAIN, cached=3),
    "frozen bfloat16": replace(PLAIN, precision="bfloat16"),
    "frozen cached documents": replace(PLAIN, cached=3, documents=True),
    "cached sgd": replace(PLAIN, cached=4, ttt=SGD),
    "cached mixture": replace(PLAIN, cached=2, ttt=SGD, mixture=Mixture()),
    "sgd": replace(PLAIN, ttt=SGD),
    "sgd documents": replace(PLAIN, ttt=SGD, documents=True),
    "adamw": replace(PLAIN, ttt=replace(SGD, optimizer="adamw", lr=0.01)),
    "muon": replace(PLAIN, ttt=replace(SGD, optimizer="muon", lr=0.02)),
    "controls": replace(PLAIN, ttt=replace(SGD, trained="controls")),
    "bfloat16 sgd": replace(PLAIN, ttt=replace(SGD, precision="bfloat16")),
    "sharpness": replace(PLAIN, ttt=replace(SGD, sharpness=0.05)),
    "adapters": replace(PLAIN, ttt=ADAPTERS, documents=True),
    "cold adapters": replace(PLAIN, ttt=replace(ADAPTERS, warm=False), documents=True),
    "phased": replace(
        PLAIN,
        ttt=Phased(pauses=(2, 4), adapters=ADAPTERS, sgd=PAUSED),
        documents=True,
    ),
    "phased longest first": replace(
        PLAIN,
        ttt=Phased(pauses=(2, 3), adapters=ADAPTERS, sgd=PAUSED),
        documents=True,
        rows=2,
        order="longest_first",
        short_strides=((12, 2), (20, 3)),
    ),
    "mixture": replace(PLAIN, mixture=Mixture()),
    "mixture of sgd": replace(PLAIN, ttt=SGD, mixture=Mixture()),
    "mixture of documents": replace(PLAIN, documents=True, mixture=Mixture()),
    "mixture of adapters": replace(PLAIN, ttt=ADAPTERS, documents=True, mixture=Mixture()),
    "tilt": replace(PLAIN, tilt=TILT),
    "tilt of sgd": replace(PLAIN, ttt=SGD, tilt=TILT),
    "tilt of documents": replace(PLAIN, documents=True, tilt=TILT),
    "tilt of adapters": replace(PLAIN, ttt=ADAPTERS, documents=True, tilt=TILT),
    "tilt of phased": replace(
        PLAIN,
        ttt=Phased(pauses=(2, 3), adapters=ADAPTERS, sgd=PAUSED),
        documents=True,
        rows=2,
        order="longest_first",
        tilt=TILT,
    ),
    "mixture of tilt": replace(PLAIN, ttt=SGD, tilt=TILT, mixture=Mixture()),
    "mixture of phased": replace(
        PLAIN,
        ttt=Phased(pauses=(2,), adapters=None, sgd=PAUSED),
        documents=True,
        mixture=Mixture(),
    ),
}

LENGTHS = (19, 2, 24, 11, 18)


def chunks_of(config: EvaluateConfig, tokens: Tensor, starts: Sequence[int]) -> list[Chunk]:
    return list(read_chunks(plans_of(config, tokens, starts), val_text(tokens)))


def plans_of(config: EvaluateConfig, tokens: Tensor, starts: Sequence[int]) -> list[ChunkPlan]:
    return plan_evaluation(config, len(tokens), starts)


def val_text(tokens: Tensor, starts: Sequence[int] = ()) -> ValText:
    """A text whose every token stands for one byte."""
    return ValText(tokens, torch.ones(len(tokens) - 1, dtype=torch.long), tuple(starts))


def nats_in_order(predictor: Predictor, chunks: Sequence[Chunk]) -> list[Tensor]:
    """What each chunk costs, each scored before it is learned from."""
    nats = []
    for chunk in chunks:
        nats.append(predictor.score(chunk))
        predictor.learn(chunk)
    return nats


def by_position(config: EvaluateConfig, tokens: Tensor, starts: Sequence[int]) -> Tensor:
    """Nats (n - 1,) of tokens[1:], whatever the order of scoring."""
    predictor, found = make_predictor(tiny_model(), config), torch.full((len(tokens) - 1,), -1.0)
    for plan in plans_of(config, tokens, starts):
        chunk = cut_chunk(plan, val_text(tokens))
        nats, begin = predictor.score(chunk), 0
        for window in plan.windows:
            scored = nats[begin : begin + window.num_targets]
            found[window.score_from - 1 : window.stop - 1] = scored.float()
            begin += window.num_targets
        predictor.learn(chunk)
    return found
