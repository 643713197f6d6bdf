"""The model as it is loaded: rebuilt from the bytes of its file and from nothing else.

What was trained, averaged or quantized in memory must not flatter a score, a proof or a text that
is compressed; so all of them begin here. How the model is evaluated is named in the file too, and
stays plain data on this side of the evaluation.
"""

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from fairway.artifact.config_json import config_from_json
from fairway.artifact.container import Artifact, unpack
from fairway.model.gpt import GPT, ModelConfig
from fairway.runtime.plugins import Plugin
from fairway.tokens.tokenizer import Tokenizer, load_tokenizer


@dataclass(frozen=True, kw_only=True, eq=False)
class LoadedModel:
    """A model ready to predict, and what it was made from.

    evaluate  the evaluation's config as JSON; empty where the file names none
    plugins   that the file was made with; nothing is imported because it says so
    sha256    of the artifact file, in hexadecimal
    """

    model: GPT
    tokenizer: Tokenizer
    evaluate: dict[str, Any] = field(default_factory=dict)
    plugins: tuple[Plugin, ...] = ()
    sha256: str = ""
    path: Path | None = None


def load_model(path: Path, device: torch.device | str = "cpu") -> LoadedModel:
    """The model in an artifact file, in float32, in evaluation mode.

    Raises ValueError naming the file and what is wrong with it.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"no model at {path}; `fairway run` and `fairway pack` write model.fwy")
    data = path.read_bytes()
    try:
        artifact = unpack(data)
        model = rebuild(artifact).to(device)
        tokenizer = load_tokenizer(artifact.tokenizer)
        plugins = [config_from_json(Plugin, each) for each in artifact.config.get("plugins", ())]
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if tokenizer.vocab_size > model.config.vocab_size:
        raise ValueError(
            f"{path}: its tokenizer has {tokenizer.vocab_size} ids and its model knows "
            f"{model.config.vocab_size}; pack it with the tokenizer it was trained with"
        )
    return LoadedModel(
        model=model,
        tokenizer=tokenizer,
        evaluate=artifact.config.get("evaluate") or {},
        plugins=tuple(plugins),
        sha256=hashlib.sha256(data).hexdigest(),
        path=path,
    )


def rebuild(artifact: Artifact) -> GPT:
    """The model of an artifact's config, with the artifact's weights."""
    if "model" not in artifact.config:
        raise ValueError(
            f"the artifact's config names {sorted(artifact.config)} but no model; pack it again "
            "with `fairway pack`"
        )
    config = config_from_json(ModelConfig, artifact.config["model"])
    model = GPT(replace(config, extra_heads=0))  # they served training alone and are not shipped
    weights, needed = artifact.state_dict(), model.state_dict()
    wrong = sorted(
        f"{name} is {'missing' if name not in weights else 'unknown' if name not in needed else ''}"
        for name in weights.keys() ^ needed.keys()
    )
    wrong += sorted(
        f"{name} is {tuple(weights[name].shape)} instead of {tuple(needed[name].shape)}"
        for name in weights.keys() & needed.keys()
        if weights[name].shape != needed[name].shape
    )
    if wrong:
        raise ValueError(
            f"the weights do not fit the model's config: {'; '.join(wrong[:4])}"
            f"{f'; {len(wrong) - 4} more' if len(wrong) > 4 else ''}"
        )
    model.load_state_dict(weights)
    model.loops_active = bool(artifact.config.get("loops_active", True))
    return model.eval()
