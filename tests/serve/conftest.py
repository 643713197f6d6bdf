"""A model of a few thousand weights, and a real server of it at a port of its own."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from fairway.artifact.config_json import config_to_json
from fairway.artifact.container import pack
from fairway.artifact.loaded_model import LoadedModel, load_model
from fairway.evaluate.config import EvaluateConfig
from fairway.model.attention import AttentionConfig
from fairway.model.gpt import GPT
from fairway.model.model_config import ModelConfig
from fairway.tokens.tokenizer import ByteTokenizer, train_tokenizer

pytest.importorskip("starlette", reason="needs the extra serve")
pytest.importorskip("uvicorn", reason="needs the extra serve")
from fairway.serve.config import ServeConfig
from fairway.serve.server import ModelServer

Serve = Callable[..., ModelServer]
TEXT = b"The Hare ran to the TREE and the tree was GREEN, said the hare. Gr\xc3\xbc\xc3\x9fe! " * 9


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, LoadedModel]:
    """By tokenizer: bytes, bpe, caseops."""
    made = {}
    for kind in ("bytes", "bpe", "caseops"):
        transform = "caseops" if kind == "caseops" else None
        tokenizer = ByteTokenizer() if kind == "bytes" else train_tokenizer([TEXT], 300, transform)
        torch.manual_seed(5)
        attention = AttentionConfig(num_heads=2, num_kv_heads=1)
        config = ModelConfig(
            vocab_size=304, model_dim=16, num_layers=2, attention=attention, train_context=32
        )
        model = GPT(config)
        torch.nn.init.normal_(model.embed.weight, std=0.5)
        evaluate = config_to_json(EvaluateConfig(context=32, stride=8))
        described = {"model": config_to_json(config), "evaluate": evaluate}
        tensors = {name: t.half() for name, t in model.shipped_state_dict().items()}
        path: Path = tmp_path_factory.mktemp(kind) / "tiny.fwy"
        path.write_bytes(pack(described, tokenizer.to_bytes(), tensors))
        made[kind] = load_model(path)
    return made


@contextmanager
def served(loaded: LoadedModel, token: str | None = None, **settings) -> Iterator[ModelServer]:
    server = ModelServer(loaded, ServeConfig(port=0, **settings), token)
    welcome = threading.Event()
    thread = threading.Thread(target=server.run, args=(welcome.set,))
    thread.start()
    try:
        assert welcome.wait(30)
        yield server
    finally:
        server.stop()
        thread.join(30)
        assert not thread.is_alive()


@pytest.fixture(scope="session")
def addresses(models: dict[str, LoadedModel]) -> Iterator[dict[str, str]]:
    """Of one server of each model."""
    with (
        served(models["bytes"]) as a, served(models["bpe"]) as b, served(models["caseops"]) as c
    ):  # fmt: skip
        yield {"bytes": a.address, "bpe": b.address, "caseops": c.address}
