"""Tiny models and texts that the tests of this folder share."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from fairway.artifact.config_json import config_to_json
from fairway.artifact.loaded_model import LoadedModel
from fairway.evaluate.config import EvaluateConfig
from fairway.model.attention import AttentionConfig
from fairway.model.gpt import GPT
from fairway.model.model_config import ModelConfig, SkipConfig
from fairway.proof.prove import prove
from fairway.tokens.byte_count import byte_table
from fairway.tokens.tokenizer import ByteTokenizer
from fairway.tokens.val_text import ValText

VOCAB = 24
DOCUMENTS = [b"to be or not to be, ", b"that is", b"", b"the question whether it is nobler"]
FROZEN = EvaluateConfig(context=16, stride=8)


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


def loaded(evaluate: EvaluateConfig, **changes) -> LoadedModel:
    """A tiny model over bytes, as if it came from a file."""
    model = tiny_model(vocab_size=260, **changes)
    return LoadedModel(
        model=model,
        tokenizer=ByteTokenizer(),
        evaluate=config_to_json(evaluate),
        sha256=hashlib.sha256(repr(changes).encode()).hexdigest(),
    )


def corpus(documents: list[bytes]) -> ValText:
    """The documents, each after a BOS."""
    tokenizer = ByteTokenizer()
    ids = [i for d in documents for i in (tokenizer.bos_id, *tokenizer.encode(d).tolist())]
    counts = torch.from_numpy(byte_table(tokenizer).target_bytes(np.array(ids)))
    starts = tuple(i for i, token in enumerate(ids) if token == tokenizer.bos_id)
    return ValText(torch.tensor(ids), counts, starts)


@pytest.fixture(scope="session")
def proof(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, LoadedModel]:
    path, model = tmp_path_factory.mktemp("proof") / "proof.fwp", loaded(FROZEN)
    prove(model, corpus(DOCUMENTS), out=path)
    return path, model
