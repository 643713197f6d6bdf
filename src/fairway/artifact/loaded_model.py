"""The model as it is loaded: rebuilt from the bytes of its file and from nothing else.

What was trained, averaged or quantized in memory must not flatter a score, a proof or a text that
is compressed; so all of them begin here. How the model is evaluated is named in the file too, and
stays plain data on this side of the evaluation.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from fairway.artifact.config_json import config_from_json
from fairway.artifact.container import MAGIC, MOST_FILE, Artifact, read_config, unpack
from fairway.model.blank import blank
from fairway.model.gpt import GPT
from fairway.model.model_config import ModelConfig
from fairway.runtime.files import read_file
from fairway.runtime.limits import one_line
from fairway.runtime.plugins import Plugin
from fairway.tokens.tokenizer import Tokenizer, load_tokenizer

MOST_MAGNITUDE = 1 << 24  # of a weight; the largest that float16 scales give are half of it


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


def is_model_file(path: Path) -> bool:
    """Whether it begins as our artifacts do; whether it is whole, `load_model` says."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def load_model(path: Path, device: torch.device | str = "cpu") -> LoadedModel:
    """The model in an artifact file, in float32, in evaluation mode.

    Raises ValueError naming the file and what is wrong with it.
    """
    path = Path(path)
    data = _read(path)
    try:
        artifact = unpack(data, accept=_blank)
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


def read_settings(path: Path) -> dict[str, Any]:
    """The config in an artifact file, as plain data; its weights are not decoded.

    Raises ValueError naming the file and what is wrong with it.
    """
    try:
        return read_config(_read(path))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def rebuild(artifact: Artifact) -> GPT:
    """The model of an artifact's config, with the artifact's weights."""
    found = {name: tuple(tensor.shape) for name, tensor in artifact.tensors.items()}
    model = _blank(artifact.config, found).to_empty(device="cpu")
    weights = artifact.state_dict()
    for name, weight in weights.items():
        if not (weight.abs() <= MOST_MAGNITUDE).all():
            raise ValueError(
                f"{name} holds numbers that are not finite, or beyond {MOST_MAGNITUDE:,}; if no "
                "one changed the file, training diverged"
            )
    model.load_state_dict(weights)
    model.loops_active = artifact.config.get("loops_active") is not False
    return model.eval()


def _read(path: Path) -> bytes:
    if not path.is_file():
        raise ValueError(f"no model at {path}; `fairway run` and `fairway pack` write model.fwy")
    return read_file(path, MOST_FILE)


def _blank(settings: Mapping[str, Any], found: Mapping[str, tuple[int, ...]]) -> GPT:
    """The model of an artifact's config on the meta device: shapes without memory.

    found  the shapes of the artifact's tensors

    Raises ValueError where they are not the model's, whatever the config asks for.
    """
    if "model" not in settings:
        raise ValueError(
            f"the artifact's config names {sorted(settings)!s:.200} but no model; pack it again "
            "with `fairway pack`"
        )
    for name, kind in {"loops_active": bool, "evaluate": dict}.items():
        if not isinstance(settings.get(name), kind | None):
            raise ValueError(f"the config's {name!r} is {settings[name]!r:.40}; pack it again")
    config = config_from_json(ModelConfig, settings["model"])
    if config.num_layers > len(found):  # said before they are built
        raise ValueError(f"{config.num_layers} layers of {len(found)} tensors; pack it again")
    model = blank(replace(config, extra_heads=0))  # which served training alone
    _require_shapes(found, {name: tuple(t.shape) for name, t in model.state_dict().items()})
    return model


def _require_shapes(
    found: Mapping[str, tuple[int, ...]], needed: Mapping[str, tuple[int, ...]]
) -> None:
    wrong = sorted(
        f"{name:.80} is {'unknown' if name in found else 'missing'}"
        for name in found.keys() ^ needed.keys()
    )
    wrong += sorted(
        f"{name} is {found[name]!s:.80} instead of {needed[name]}"
        for name in found.keys() & needed.keys()
        if found[name] != needed[name]
    )
    if wrong:
        raise ValueError(
            f"the weights do not fit the model's config: {one_line('; '.join(wrong[:4]), 500)}"
            f"{f'; {len(wrong) - 4} more' if len(wrong) > 4 else ''}"
        )
