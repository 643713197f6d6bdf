"""Compressed artifacts: both published forms, known by their bytes, and nothing that could run."""

import io
import lzma
import pickle
import zlib
from pathlib import Path
from typing import Any

import brotli
import pytest
import torch
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from fairway.coding.codecs import SHUFFLE_MAGIC, unshuffle
from fairway.interop.ptz import read_ptz, read_weights

SAVED = {
    "w": {
        "a.weight.q": torch.tensor([[1, -2, 31], [0, 3, -32]], dtype=torch.int8),
        "a.weight.scale": torch.tensor([0.5, 2.0], dtype=torch.float16),
        "b": torch.tensor([1.0, 2.0], dtype=torch.float16),
    },
    "m": {"a.weight": {"type": "int6"}, "b": "passthrough"},
}
EXPECTED = torch.tensor([[0.5, -1.0, 15.5], [0.0, 6.0, -64.0]])


def torch_bytes(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def shuffle(data: bytes, stride: int) -> bytes:
    return SHUFFLE_MAGIC + bytes([stride]) + b"".join(data[i::stride] for i in range(stride))


FORMS = {
    "zstd": lambda data: zstandard.compress(data, 22),
    "zlib, where zstd was missing": zlib.compress,
    "brotli over shuffled bytes": lambda data: brotli.compress(shuffle(data, 2)),
    "lzma over shuffled bytes": lambda data: lzma.compress(shuffle(data, 2)),
    "brotli alone": brotli.compress,
}


@pytest.mark.parametrize("form", FORMS)
def test_an_artifact_is_read_whatever_packed_it(form: str, tmp_path: Path) -> None:
    path = tmp_path / "model.ptz"
    path.write_bytes(FORMS[form](torch_bytes(SAVED)))
    weights = read_ptz(path)
    assert list(weights) == ["a.weight", "b"]
    assert torch.equal(weights["a.weight"], EXPECTED)
    assert torch.equal(weights["b"], torch.tensor([1.0, 2.0]))


@given(st.binary(max_size=70), st.integers(1, 9))
def test_unshuffling_undoes_the_shuffle(data: bytes, stride: int) -> None:
    assert unshuffle(shuffle(data, stride)) == data


def test_gptq_words_and_launch_tables_mean_the_same(tmp_path: Path) -> None:
    words = {"w": SAVED["w"], "m": {"a.weight": "gptq (int6)", "b": "passthrough (float16)"}}
    tables = {
        "__quant_format__": "int8_clean_per_row_v1",
        "quantized": {"a.weight": SAVED["w"]["a.weight.q"]},
        "scales": {"a.weight": SAVED["w"]["a.weight.scale"]},
        "dtypes": {"a.weight": "bfloat16"},
        "passthrough": {"b": SAVED["w"]["b"]},
    }
    for saved in (words, tables):
        path = tmp_path / "model.ptz"
        path.write_bytes(zlib.compress(torch_bytes(saved)))
        assert torch.equal(read_ptz(path)["a.weight"], EXPECTED)


class Runs:
    """What a hostile file would hold: something to be called on loading."""

    def __reduce__(self) -> tuple:
        return (pytest.fail, ("code in a file was run",))


@pytest.mark.parametrize("held", [Runs(), {"w": Runs(), "m": {}}])
def test_code_in_a_file_is_never_run(held: Any, tmp_path: Path) -> None:
    path = tmp_path / "model.ptz"
    path.write_bytes(zstandard.compress(torch_bytes(held)))
    with pytest.raises(ValueError, match="holds more than tensors and plain containers"):
        read_ptz(path)


@pytest.mark.parametrize(
    ("held", "words"),
    [
        ({"w": {"a": {1, 2}}, "m": {}}, r"\['w'\]\['a'\] is a set"),
        ({"w": torch.nn.Parameter(torch.ones(2)).data.to_sparse(), "m": {}}, "a sparse or quant"),
        ({1: torch.ones(2)}, "key 1 is no name"),
        ([torch.ones(2)], "unknown artifact layout: list"),
        ({"weights": torch.ones(2)}, "unknown artifact layout: weights"),
        ({"w": {}, "m": {"a": "gptq (int6)"}}, r"a\.q, a\.scale is missing"),
        ({"w": {}, "m": {"a": "vq (k4)"}}, r"a was stored as 'vq \(k4\)', which is not known"),
        ({"w": {"b": torch.ones(2)}, "m": {}}, "b belongs to nothing"),
        (
            {"w": SAVED["w"] | {"a.weight.scale": torch.ones(3)}, "m": SAVED["m"]},
            r"a.weight: scale \(3,\) for codes \(2, 3\)",
        ),
    ],
)
def test_what_is_no_artifact_is_refused_in_words(held: Any, words: str, tmp_path: Path) -> None:
    path = tmp_path / "model.ptz"
    path.write_bytes(zlib.compress(torch_bytes(held)))
    with pytest.raises(ValueError, match=words):
        read_ptz(path)


@pytest.mark.parametrize(
    "data",
    [b"", b"nonsense", zstandard.compress(b"text"), brotli.compress(pickle.dumps({"a": 1}))],
)
def test_other_files_are_refused(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.ptz"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"model.ptz cannot be read as an artifact"):
        read_ptz(path)


@pytest.mark.parametrize("cut", [1, 40, -1])
def test_damaged_files_are_refused(cut: int, tmp_path: Path) -> None:
    path = tmp_path / "model.ptz"
    for pack in FORMS.values():
        path.write_bytes(pack(torch_bytes(SAVED))[:cut])
        with pytest.raises(ValueError, match=r"model\.ptz"):
            read_ptz(path)


def test_checkpoints_come_as_pt_or_safetensors(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    weights = {"a": torch.ones(2, 3), "b": torch.zeros(1)}
    torch.save(weights, tmp_path / "one.pt")
    torch.save({"state_dict": weights, "config": {"NUM_LAYERS": "1"}}, tmp_path / "two.pt")
    save_file(weights, tmp_path / "three.safetensors")
    for name in ("one.pt", "two.pt", "three.safetensors"):
        read = read_weights(tmp_path / name)
        assert read.keys() == weights.keys()
        assert all(torch.equal(read[key], tensor) for key, tensor in weights.items())
    with pytest.raises(ValueError, match=r"ends in .pt, .safetensors or .ptz"):
        read_weights(tmp_path / "four.bin")
    torch.save({"a": 3}, tmp_path / "five.pt")
    with pytest.raises(ValueError, match="is no state dict"):
        read_weights(tmp_path / "five.pt")
