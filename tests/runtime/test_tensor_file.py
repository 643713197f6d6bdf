"""What was written comes back, and no damaged byte becomes a weight."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError
from safetensors.torch import save_file

from fairway.runtime import tensor_file
from fairway.runtime.tensor_file import read_tensors, write_tensors

TENSORS = {
    "weights": torch.arange(12.0).reshape(3, 4),
    "half": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
    "empty": torch.zeros(0, 3),
    "count": torch.tensor(7),
}
FACTS = {"step": 5, "names": ["a", "b"], "rate": 0.1, "none": None}


def test_what_was_written_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "state"
    write_tensors(path, TENSORS, FACTS)
    tensors, facts = read_tensors(path, "a state")
    assert facts == FACTS
    assert tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert tensors[name].dtype == tensor.dtype
        assert torch.equal(tensors[name], tensor)
    assert [p.name for p in tmp_path.iterdir()] == ["state"]


def test_every_flipped_byte_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state"
    write_tensors(path, TENSORS, FACTS)
    data = path.read_bytes()
    for place in range(len(data)):
        for flip in (1, 0x80):
            damaged = bytearray(data)
            damaged[place] ^= flip
            path.write_bytes(damaged)
            try:
                found = read_tensors(path, "a state")
            except ValueError as error:
                assert "is not a state" in str(error)  # noqa: PT017
            else:  # a blank in the JSON, say, which changes nothing
                assert found.facts == FACTS
                assert all(torch.equal(found.tensors[n], t) for n, t in TENSORS.items())


@settings(max_examples=60)
@given(st.binary(max_size=300))
def test_any_other_file_is_refused_in_one_line(data: bytes) -> None:
    path = Path("/tmp") / f"fairway_any_{abs(hash(data))}"
    try:
        path.write_bytes(data)
        with pytest.raises(ValueError, match="is not a state") as caught:
            read_tensors(path, "a state")
        assert "\n" not in str(caught.value)
    finally:
        path.unlink()


def test_a_file_of_others_is_refused(tmp_path: Path) -> None:
    save_file({"w": torch.zeros(2)}, tmp_path / "plain")
    save_file({"w": torch.zeros(2)}, tmp_path / "deep", {"fairway": "[" * 100_000})
    save_file({"w": torch.zeros(2)}, tmp_path / "odd", {"fairway": json.dumps([1])})
    for name in ("plain", "deep", "odd"):
        with pytest.raises(ValueError, match="is not a state, or is damaged"):
            read_tensors(tmp_path / name, "a state")
    with pytest.raises(ValueError, match="no file at"):
        read_tensors(tmp_path / "none", "a state")


def test_a_full_disk_leaves_the_old_file_and_nothing_half_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "state.safetensors"
    write_tensors(path, {"a": torch.ones(2)}, {})
    before = path.read_bytes()

    def full(tensors: object, file: Path, metadata: object) -> None:
        file.write_bytes(b"half")
        raise SafetensorError("No space left on device")

    monkeypatch.setattr(tensor_file, "save_file", full)
    with pytest.raises(OSError, match="is the disk full"):
        write_tensors(path, {"a": torch.zeros(2)}, {})
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
