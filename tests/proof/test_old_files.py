"""Files in settled arithmetic from before gradients had a margin of their own still open."""

import hashlib
import json
from pathlib import Path

import pytest
import torch

from fairway.artifact.config_json import config_to_json
from fairway.artifact.loaded_model import LoadedModel
from fairway.evaluate.config import EvaluateConfig
from fairway.evaluate.learners.optimizers import Optimizer
from fairway.evaluate.learners.sgd import Sgd
from fairway.model.attention import AttentionConfig
from fairway.model.gpt import GPT
from fairway.model.model_config import ModelConfig
from fairway.proof.compress import CompressConfig, code, decompress
from fairway.runtime.native import switched_off
from fairway.tokens.tokenizer import ByteTokenizer

FILES = json.loads(Path(__file__).with_name("files_before_gradients.golden.json").read_text())
TEXT = b"that which was coded before opens, before and after"


def same_everywhere(optimizer: Optimizer) -> LoadedModel:
    """A model whose weights no machine's random numbers decide."""
    attention = AttentionConfig(num_heads=1, num_kv_heads=1)
    config = ModelConfig(
        vocab_size=260, model_dim=8, num_layers=1, attention=attention, train_context=16
    )
    model = GPT(config).eval()
    with torch.no_grad():
        for number, weight in enumerate(model.parameters()):
            mixed = (torch.arange(weight.numel()) + 1000 * number) * 2654435761 % 2**32
            weight.copy_((mixed.double() / 2**32 - 0.5).view_as(weight))
    learner = Sgd(chunk_tokens=16, epochs=2, lr=0.05, batch_sequences=2, optimizer=optimizer)
    evaluate = EvaluateConfig(context=16, stride=8, arithmetic="settled", ttt=learner)
    return LoadedModel(
        model=model,
        tokenizer=ByteTokenizer(),
        evaluate=config_to_json(evaluate),
        sha256=hashlib.sha256(b"portable").hexdigest(),
    )


@pytest.mark.parametrize("optimizer", FILES)
def test_an_old_file_opens(optimizer: Optimizer) -> None:
    data = bytes.fromhex(FILES[optimizer])
    assert decompress(same_everywhere(optimizer), data) == TEXT
    with switched_off():
        assert decompress(same_everywhere(optimizer), data) == TEXT


@pytest.mark.parametrize("optimizer", FILES)
def test_what_is_made_now_is_made_otherwise(optimizer: Optimizer) -> None:
    """Else the files above would show nothing."""
    made = code(same_everywhere(optimizer), TEXT, CompressConfig(guard=False))
    assert made[-60:] != bytes.fromhex(FILES[optimizer])[-60:]
