"""A .npy file may say anything of itself; nothing is believed before it agrees with its length."""

import io
import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest

from fairway.audit.token_file import read_token_file

IDS = np.arange(20, dtype=np.int32)


def header(text: str, body: bytes = b"") -> bytes:
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode() + body


def described(kind: str, shape: str) -> bytes:
    return header(f"{{'descr': {kind}, 'fortran_order': False, 'shape': {shape}, }}\n", bytes(160))


def saved(array: np.ndarray) -> bytes:
    held = io.BytesIO()
    np.save(held, array)
    return held.getvalue()


class Runs:
    def __reduce__(self) -> tuple:
        return (pytest.fail, ("code in a file was run",))


BAD = {
    "empty": b"",
    "text": b"no array",
    "pickle": pickle.dumps(Runs()),
    "objects": saved(np.array([{}], object)),
    "a zip of arrays": b"PK\x03\x04" + bytes(100),
    "eight tebibytes": described("'<i8'", "(1099511627776,)"),
    "less than nothing": described("'<i8'", "(-1,)"),
    "two dimensions": described("'<i8'", "(4, 5)"),
    "none": described("'<i8'", "()"),
    "no width": described("'|V0'", "(99999999999,)"),
    "wide records": described("('<i8', (1000000, 1000))", "(1000,)"),
    "no numbers": described("'<f8'", "(20,)"),
    "a calculation": described("'<i8'", "(1 << 40,)"),
    "deep": header("(" * 9000 + "\n"),
    "deep sums": header("{'descr': " + "-" * 9000 + "1}\n"),
    "long header": b"\x93NUMPY\x02\x00" + struct.pack("<I", 1 << 30) + b"{}",
    "header too long to be read": b"\x93NUMPY\x02\x00" + struct.pack("<I", 20_000) + b" " * 20_000,
    "third version": b"\x93NUMPY\x03\x00" + bytes(100),
    "cut": saved(IDS)[:-1],
    "longer": saved(IDS) + b"x",
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_row_of_integers_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    file = tmp_path / "tokens.npy"
    file.write_bytes(BAD[name])
    with pytest.raises(ValueError, match=r"tokens\.npy") as said:
        read_token_file(file)
    assert "\n" not in str(said.value)
    assert len(str(said.value)) < 400


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "tokens.npy")
    with pytest.raises(ValueError, match="is no file"):
        read_token_file(tmp_path / "tokens.npy")


@pytest.mark.parametrize("kind", ["<i8", ">i4", "<u2", "<u1"])
def test_every_kind_of_integer_is_read(kind: str, tmp_path: Path) -> None:
    np.save(tmp_path / "tokens.npy", IDS.astype(kind))
    assert read_token_file(tmp_path / "tokens.npy").tolist() == IDS.tolist()
