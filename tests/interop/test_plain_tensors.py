"""Checkpoints made to hurt: nothing runs, nothing grows, and each is refused in one line."""

import io
import json
import os
import pickle
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fairway.interop.ptz import dequantize_published, read_weights

WEIGHTS = {"a": torch.ones(2, 3), "b": torch.arange(4)}


def saved(value: Any, **options: Any) -> bytes:
    held = io.BytesIO()
    torch.save(value, held, **options)
    return held.getvalue()


def changed(change: Callable[[str, bytes], bytes | None], pack: int = zipfile.ZIP_STORED) -> bytes:
    """A checkpoint with other contents of its entries; None leaves one out."""
    held = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(saved(WEIGHTS))) as source,
        zipfile.ZipFile(held, "w", pack) as target,
    ):
        for name in source.namelist():
            if (content := change(name, source.read(name))) is not None:
                target.writestr(name, content)
    return held.getvalue()


def pickled(code: bytes) -> bytes:
    return changed(lambda name, old: code if name.endswith("data.pkl") else old)


def safetensors(header: Any, body: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def tensor(kind: str, shape: list[int], size: int) -> bytes:
    described = {"dtype": kind, "shape": shape, "data_offsets": [0, size]}
    return safetensors({"a": described}, bytes(size))


class Runs:
    """What a hostile file would hold: something to be called on loading."""

    def __reduce__(self) -> tuple:
        return (pytest.fail, ("code in a file was run",))


def bad_files() -> dict[str, bytes]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sparse, csr = torch.eye(3).to_sparse(), torch.eye(3).to_sparse_csr()
        one = torch.ones(9999)
        nested = torch.nested.nested_tensor([torch.ones(2)])
    return {
        "empty.pt": b"",
        "garbage.pt": b"abc" * 100,
        "old form.pt": saved(WEIGHTS, _use_new_zipfile_serialization=False),
        "old form that runs.pt": pickle.dumps(Runs()),
        "runs.pt": pickled(pickle.dumps(Runs(), protocol=2)),
        "deep.pt": pickled(b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b"."),
        "deeper.pt": pickled(b"\x80\x02" + b"(" * 2_000_000 + b"N" + b"t" * 2_000_000 + b"."),
        "in itself.pt": pickled(b"\x80\x02}q\x00X\x01\x00\x00\x00ah\x00s."),
        "a long number.pt": pickled(b"\x80\x02\x8b" + struct.pack("<i", 1 << 30) + b"1."),
        "no end.pt": pickled(b"\x80\x02N"),
        "nothing.pt": pickled(b""),
        "packed.pt": changed(lambda name, old: old * 1000, zipfile.ZIP_DEFLATED),
        "short.pt": changed(lambda name, old: old[:4] if name.endswith("data/0") else old),
        "lost.pt": changed(lambda name, old: None if name.endswith("data/0") else old),
        "cut.pt": saved(WEIGHTS)[:-30],
        "expanded.pt": saved({"a": torch.zeros(1).expand(1 << 40)}),
        "strides.pt": saved({"a": torch.zeros(1).as_strided((1 << 20, 1 << 20), (0, 0))}),
        "many views.pt": saved({str(number): one.view(-1) for number in range(99)}),
        "on no device.pt": saved({"a": torch.empty(1 << 40, device="meta")}),
        "complex.pt": saved({"a": torch.zeros(2, dtype=torch.complex64)}),
        "sparse.pt": saved({"a": sparse}),
        "rows.pt": saved({"a": csr}),
        "nested.pt": saved({"a": nested}),
        "numbers for names.pt": saved({1: torch.ones(1)}),
        "bomb.ptz": zlib.compress(changed(lambda name, old: old * 1000, zipfile.ZIP_DEFLATED)),
        "empty.safetensors": b"",
        "no header.safetensors": struct.pack("<Q", 1 << 60) + b"{}",
        "short header.safetensors": struct.pack("<Q", 90 << 20) + b"{}",
        "a lie.safetensors": tensor("F32", [1 << 40], 4),
        "too large to count.safetensors": tensor("F32", [1 << 32, 1 << 32], 0),
        "negative.safetensors": tensor("F32", [-1], 4),
        "deep.safetensors": safetensors(b"[" * 100_000),
        "half a byte.safetensors": tensor("F4", [2], 1),
        "complex.safetensors": tensor("C64", [1], 8),
    }


BAD = bad_files()


@pytest.mark.parametrize("name", BAD)
def test_what_is_made_to_hurt_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(BAD[name])
    with pytest.raises(ValueError, match=name.split(".")[0]) as said:
        read_weights(tmp_path / name)
    assert "\n" not in str(said.value)
    assert len(str(said.value)) < 600


def test_a_container_in_many_places_is_looked_at_once(tmp_path: Path) -> None:
    """Forty lists, each twice in the next, are 2**40 when each place is visited."""
    code = b"\x80\x02}q\x00X\x01\x00\x00\x00a]q\x01"
    for number in range(2, 14):
        code += b"]q" + bytes([number]) + (b"h" + bytes([number - 1])) + b"a"
        code += b"h" + bytes([number - 1]) + b"a"
    (tmp_path / "laughs.pt").write_bytes(pickled(code + b"s."))
    with pytest.raises(ValueError, match=r"laughs\.pt"):
        read_weights(tmp_path / "laughs.pt")


def test_a_flipped_byte_is_refused_or_harmless(tmp_path: Path) -> None:
    """PyTorch compares no sums; a changed weight is another model, and so is unwritten memory."""
    whole, file = saved(WEIGHTS), tmp_path / "flipped.pt"
    for place in range(len(whole)):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
        try:
            found = read_weights(file)
        except ValueError as error:
            assert "flipped.pt" in str(error)  # noqa: PT017  (most are refused, some harmless)
        else:
            assert all(torch.equal(found[name], WEIGHTS[name]) for name in WEIGHTS)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pt")
    (tmp_path / "folder.pt").mkdir()
    for name in ("pipe.pt", "folder.pt"):
        with pytest.raises(ValueError, match="is no file but a folder, pipe or device"):
            read_weights(tmp_path / name)


@pytest.mark.parametrize(
    "held",
    [
        {"w": [], "m": {}},
        {"w": {}, "m": 3},
        {"w": {"a": 3}, "m": {"a": "passthrough"}},
        {"__quant_format__": "int8_clean"},
        {"__quant_format__": "int8_clean", "quantized": {"a": torch.ones(1)}, "scales": {},
         "passthrough": {}},
        {"__quant_format__": "int8_clean", "quantized": {"a": torch.tensor(1)},
         "scales": {"a": torch.ones(1)}, "passthrough": {}},
        {"__quant_format__": "int8_clean", "quantized": {}, "scales": {}, "passthrough": {"a": 1}},
    ],
)  # fmt: skip
def test_tables_of_the_wrong_form_are_refused(held: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"artifact|scale"):
        dequantize_published(held)
