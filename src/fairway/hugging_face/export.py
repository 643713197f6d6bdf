"""A model file as a folder for `AutoModelForCausalLM` and `AutoTokenizer`, with a card.

The folder stands alone: weights as safetensors, and the very source files that ran here, each
beside those it needs. Whoever opens it says trust_remote_code=True and needs no fairway.
"""

import json
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from fairway.artifact.config_json import config_to_json
from fairway.artifact.loaded_model import LoadedModel
from fairway.hugging_face.card import model_card
from fairway.runtime.files import atomic_write, whole_folder
from fairway.runtime.own_sources import flat_name, flat_source, needed_modules
from fairway.tokens.tokenizer import PAD

CLASSES = {  # by entry file: what each class is found as
    "configuration_fairway": {"AutoConfig": "FairwayConfig"},
    "modeling_fairway": {"AutoModelForCausalLM": "FairwayForCausalLM"},
    "tokenization_fairway": {"AutoTokenizer": "FairwayTokenizer"},
}
HERE = "fairway.hugging_face"
TOKENIZER = "tokenizer.fairway"


def export(loaded: LoadedModel, out: Path, *, overwrite: bool = False) -> list[str]:
    """Write the folder `out`, whole or not at all; returns the names of its files.

    Raises ValueError where a folder is there already, unless it may be replaced.
    """
    if out.exists() and not overwrite:
        raise ValueError(f"{out} is there already; name another folder, or give --overwrite")
    with whole_folder(out) as folder:
        weights = {f"model.{name}": t for name, t in loaded.model.shipped_state_dict().items()}
        contiguous = {name: tensor.cpu().contiguous() for name, tensor in weights.items()}
        save_file(contiguous, folder / "model.safetensors", metadata={"format": "pt"})
        atomic_write(folder / TOKENIZER, loaded.tokenizer.to_bytes())
        _write_json(folder / "config.json", _config(loaded))
        _write_json(folder / "tokenizer_config.json", _tokenizer_config(loaded))
        _write_json(folder / "generation_config.json", _generation_config(loaded))
        for name, source in _sources().items():
            atomic_write(folder / name, source.encode())
        atomic_write(folder / "README.md", model_card(loaded).encode())
        return sorted(path.name for path in folder.iterdir())


def _config(loaded: LoadedModel) -> dict[str, Any]:
    auto_map = {
        auto: f"{file}.{name}"
        for file, classes in CLASSES.items()
        for auto, name in classes.items()
        if auto != "AutoTokenizer"
    }
    model = loaded.model
    described = config_to_json(model.config) | {"extra_heads": 0}  # which served training alone
    return {
        "model_type": "fairway",
        "architectures": ["FairwayForCausalLM"],
        "auto_map": auto_map,
        "model": described,
        "loops_active": model.loops_active,
        "dtype": "float32",
    }


def _tokenizer_config(loaded: LoadedModel) -> dict[str, Any]:
    return {
        "tokenizer_class": "FairwayTokenizer",
        "auto_map": {"AutoTokenizer": ["tokenization_fairway.FairwayTokenizer", None]},
        "model_max_length": loaded.model.config.train_context,
        "clean_up_tokenization_spaces": False,
    }


def _generation_config(loaded: LoadedModel) -> dict[str, Any]:
    bos_id = loaded.model.config.bos_id
    return {"bos_token_id": bos_id, "eos_token_id": bos_id, "pad_token_id": PAD}


def _sources() -> dict[str, str]:
    """By file name: the entries under their own names, all they need under flat ones."""
    entries = {f"{HERE}.{file}": file for file in CLASSES}
    sources = {}
    for module in needed_modules(entries):
        source = flat_source(module)
        for entry, file in entries.items():
            source = source.replace(f".{flat_name(entry)} import", f".{file} import")
        sources[f"{entries.get(module, flat_name(module))}.py"] = source
    return sources


def _write_json(path: Path, value: dict[str, Any]) -> None:
    atomic_write(path, json.dumps(value, indent=1).encode())
