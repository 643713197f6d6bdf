"""The compressed artifacts of the published scripts, read back into float32 weights.

An artifact is `torch.save` of a few dictionaries of tensors, its bytes shuffled or not, inside a
general compressor. Which, the bytes themselves say; what may be in it is in `plain_tensors.py`, and
what the tensors mean in `published_weights.py`.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from fairway.coding.codecs import SHUFFLE_MAGIC, codec, unshuffle
from fairway.interop.plain_tensors import (
    TORCH_MAGIC,
    Plain,
    load_plain,
    load_safetensors,
    read_bytes,
)

MOST_BYTES = 1 << 29  # of the plain file; a published model in float32 is a quarter of that
FREE_BYTES, MOST_RATIO = 1 << 22, 64  # ... which may be so much larger; theirs are three times
# How the files of each codec begin. Brotli marks its streams with nothing, so it is tried on any
# file, and last.
MAGIC = {"zstd": b"\x28\xb5\x2f\xfd", "lzma": b"\xfd7zXZ\x00", "zlib": b"\x78", "brotli": b""}


def read_ptz(path: str | Path) -> dict[str, Tensor]:
    """Weights of a published quantized artifact, float32, under the script's own names.

    path  a file written by one of the scripts: zstd or zlib over `torch.save` (to #414), or brotli
          or LZMA over byte-shuffled `torch.save` (#1218 on)

    Raises ValueError for what is not such a file, or holds anything but tensors and containers.
    """
    path = Path(path)
    return dequantize_published(load_plain(decompress(read_bytes(path), str(path)), str(path)))


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Tensors of a .pt, .safetensors or .ptz file, under the names they have there."""
    path = Path(path)
    if path.suffix == ".ptz":
        return read_ptz(path)
    if path.suffix == ".safetensors":
        return load_safetensors(path)
    if path.suffix not in (".pt", ".pth"):
        raise ValueError(f"{path}: a checkpoint ends in .pt, .safetensors or .ptz")
    loaded = load_plain(read_bytes(path), str(path))
    loaded = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else loaded
    tensors = _tensors_of(loaded)
    if tensors is None:
        raise ValueError(f"{path} is no state dict: it must hold tensors by name and nothing else")
    return tensors


def decompress(data: bytes, where: str = "the file") -> bytes:
    """The `torch.save` bytes inside an artifact; ValueError where none come to light."""
    reasons, most = [], min(MOST_BYTES, FREE_BYTES + MOST_RATIO * len(data))
    for name in (name for name, magic in MAGIC.items() if data.startswith(magic)):
        try:
            plain = codec(name).decompress(data, most)
        except ValueError as error:
            reasons.append(f"{name}: {error}")
            continue
        if plain.startswith(SHUFFLE_MAGIC):
            plain = unshuffle(plain)
        if plain.startswith(TORCH_MAGIC):
            return plain
        reasons.append(f"{name}: holds no torch.save file but {plain[:6].hex()}...")
    raise ValueError(
        f"{where} cannot be read as an artifact ({'; '.join(reasons)}). Those that #1855 "
        f"packs by lrzip are not supported; give its final_model.pt instead"
    )


def dequantize_published(saved: Plain) -> dict[str, Tensor]:
    """Either layout of codes and scales -> float32 tensors by name."""
    if isinstance(saved, dict) and saved.keys() == {"w", "m"}:
        kinds = saved["m"]
        if not isinstance(kinds, dict):
            raise ValueError("artifact: m does not say by name how each tensor was stored")
        return _from_metadata(_tensors(saved["w"], "w"), kinds)
    if isinstance(saved, dict) and str(saved.get("__quant_format__", "")).startswith("int8_clean"):
        return _from_int8_tables(saved)
    keys = ", ".join(map(str, saved)) if isinstance(saved, dict) else type(saved).__name__
    raise ValueError(f"unknown artifact layout: {keys}; known are w with m (#39 on) and int8_clean")


def _from_metadata(weights: Mapping[str, Tensor], kinds: Mapping[str, Plain]) -> dict[str, Tensor]:
    """The layout with `NAME.q`, `NAME.scale` and what was done to each name."""
    done: dict[str, Tensor] = {}
    used: set[str] = set()
    problems = []
    for name, kind in kinds.items():
        text = str(kind.get("type", kind)) if isinstance(kind, dict) else str(kind)
        parts = [name]
        if not text.startswith("passthrough"):
            parts = [f"{name}.q", f"{name}.scale"]
            if re.fullmatch(r"(gptq )?\(?int\d\)?", text) is None:
                problems.append(f"{name} was stored as {text!r}, which is not known here")
                continue
        if missing := [part for part in parts if part not in weights]:
            problems.append(f"{', '.join(missing)} is missing")
            continue
        used.update(parts)
        tensors = [weights[part] for part in parts]
        done[name] = tensors[0].float() if len(tensors) == 1 else _scaled(name, *tensors)
    if spare := sorted(weights.keys() - used):
        problems.append(f"{', '.join(spare)} belongs to nothing")
    if problems:
        raise ValueError(f"artifact: {'; '.join(problems)}")
    return done


def _from_int8_tables(saved: Mapping[str, Plain]) -> dict[str, Tensor]:
    """The launch baseline's layout: tables of codes, scales and untouched tensors."""
    scales, codes, kept = (
        _tensors(saved.get(part), part) for part in ("scales", "quantized", "passthrough")
    )
    if missing := sorted(codes.keys() - scales.keys()):
        raise ValueError(f"artifact: the scale of {', '.join(missing)} is missing")
    done = {name: _scaled(name, tensor, scales[name]) for name, tensor in codes.items()}
    return done | {name: tensor.float() for name, tensor in kept.items()}


def _tensors(value: Plain, what: str) -> dict[str, Tensor]:
    tensors = _tensors_of(value)
    if tensors is None:
        raise ValueError(f"artifact: {what} holds more than tensors by name")
    return tensors


def _tensors_of(value: Plain) -> dict[str, Tensor] | None:
    """The tensors by name that `value` is, if that is all it is."""
    if not isinstance(value, dict):
        return None
    tensors = {name: item for name, item in value.items() if isinstance(item, Tensor)}
    return tensors if len(tensors) == len(value) else None


def _scaled(name: str, codes: Tensor, scale: Tensor) -> Tensor:
    """codes (R, ...) times scale (R,) or ()."""
    if scale.ndim > 1 or (scale.ndim == 1 and scale.shape != codes.shape[:1]):
        raise ValueError(f"{name}: scale {tuple(scale.shape)} for codes {tuple(codes.shape)}")
    shape = (-1, *(1,) * (codes.ndim - 1)) if scale.ndim else ()
    return codes.float() * scale.float().view(shape)
