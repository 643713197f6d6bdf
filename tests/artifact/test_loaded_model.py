"""What is served is what the file says, and nothing else."""

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fairway.artifact.config_json import config_to_json
from fairway.artifact.container import pack
from fairway.artifact.loaded_model import load_model
from fairway.model.attention import AttentionConfig
from fairway.model.depth import Loop
from fairway.model.gpt import GPT
from fairway.model.model_config import ModelConfig
from fairway.quant.quantized import dequantize
from fairway.tokens.tokenizer import ByteTokenizer

CONFIG = ModelConfig(
    vocab_size=260,
    model_dim=16,
    num_layers=3,
    attention=AttentionConfig(num_heads=2, num_kv_heads=1),
    loop=Loop(first=1, last=1),
    extra_heads=1,
)


def write(path: Path, tensors: dict, **config) -> bytes:
    settings = {"model": config_to_json(CONFIG), "evaluate": {"context": 8}} | config
    data = pack(settings, ByteTokenizer().to_bytes(), tensors)
    path.write_bytes(data)
    return data


def trained() -> GPT:
    torch.manual_seed(0)
    model = GPT(CONFIG)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return model.eval()


def test_the_model_comes_back_with_its_tokenizer_and_its_evaluation(tmp_path: Path) -> None:
    model, path = trained(), tmp_path / "model.fwy"
    weights = {name: tensor.half() for name, tensor in model.shipped_state_dict().items()}
    data = write(path, weights)
    loaded = load_model(path)
    assert loaded.sha256 == hashlib.sha256(data).hexdigest()
    assert loaded.evaluate == {"context": 8}
    assert loaded.tokenizer.decode(loaded.tokenizer.encode(b"bytes")) == b"bytes"
    assert not loaded.model.training
    model.load_state_dict(dequantize(weights), strict=False)
    tokens = torch.randint(260, (2, 8))
    with torch.inference_mode():
        assert torch.equal(loaded.model(tokens), model(tokens))


def test_loops_run_only_where_the_file_says_so(tmp_path: Path) -> None:
    weights = {name: t.half() for name, t in trained().shipped_state_dict().items()}
    write(tmp_path / "on.fwy", weights)
    write(tmp_path / "off.fwy", weights, loops_active=False)
    assert load_model(tmp_path / "on.fwy").model.loops_active
    assert not load_model(tmp_path / "off.fwy").model.loops_active


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    path = tmp_path / "model.fwy"
    weights = {name: t.half() for name, t in trained().shipped_state_dict().items()}
    whole = write(path, weights)

    path.write_bytes(whole[:-1])
    with pytest.raises(ValueError, match=r"model.fwy: "):
        load_model(path)
    embed = weights.pop("embed.weight")
    write(path, weights | {"embedding": embed})
    with pytest.raises(ValueError, match=r"embed.weight is missing; embedding is unknown"):
        load_model(path)
    write(path, weights | {"embed.weight": embed[:100]})
    with pytest.raises(ValueError, match=r"embed.weight is \(100, 16\) instead of \(260, 16\)"):
        load_model(path)
    write(path, weights | {"embed.weight": embed}, model={"vocab_size": 260})
    with pytest.raises(ValueError, match=r"ModelConfig lacks 'model_dim'"):
        load_model(path)
    path.write_bytes(pack({"recipe": "x"}, ByteTokenizer().to_bytes(), {}))
    with pytest.raises(ValueError, match=r"names \['recipe'\] but no model"):
        load_model(path)
    with pytest.raises(ValueError, match=r"no model at .*none"):
        load_model(tmp_path / "none")


def test_a_tokenizer_larger_than_the_model_is_refused(tmp_path: Path) -> None:
    small = GPT(replace(CONFIG, vocab_size=100))
    weights = {name: t.half() for name, t in small.shipped_state_dict().items()}
    path = tmp_path / "model.fwy"
    write(path, weights, model=config_to_json(small.config))
    with pytest.raises(ValueError, match=r"its tokenizer has 260 ids and its model knows 100"):
        load_model(path)
