"""Tensors out of files of the field that nobody vouches for: `torch.save` and safetensors.

Nothing in a file may run: only tensors, names, numbers and plain containers are let through, and
sizes must agree with the file's length before memory is asked for. Every refusal is one line.
"""

import io
import re
import stat
import warnings
import zipfile
from pathlib import Path
from typing import IO, TypeAlias

import torch
from torch import Tensor

Plain: TypeAlias = (
    "Tensor | bool | int | float | str | list[Plain] | tuple[Plain, ...] | dict[str, Plain] | None"
)
TORCH_MAGIC = b"PK\x03\x04"  # torch.save writes a zip file
MOST_FILE_BYTES = 1 << 32  # of a checkpoint
MOST_PICKLE_BYTES = 1 << 18  # names and shapes of some three thousand tensors
MOST_ENTRIES = 20_000
MOST_DEPTH = 16
SHARED = 4  # tensors may share memory, as tied ones do, but not to be so many times the file
DTYPES = {
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.bool,
    torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64,
}  # fmt: skip


def read_bytes(path: Path) -> bytes:
    """A file's content; ValueError for what is none, or too long to be a model."""
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise ValueError(f"{path} is no file but a folder, pipe or device")
    if found.st_size > MOST_FILE_BYTES:
        raise ValueError(f"{path} has {found.st_size:,} bytes; no model here is over 4 GiB")
    return path.read_bytes()


def load_safetensors(path: Path) -> dict[str, Tensor]:
    """Tensors by name; ValueError for what is no such file."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    data = read_bytes(path)
    try:
        loaded = load(data)
    except (SafetensorError, KeyError, RuntimeError, ValueError) as error:
        raise ValueError(f"{path} is no safetensors file, or damaged: {_reason(error)}") from error
    _Plain(str(path), len(data)).check(loaded)
    return loaded


def load_plain(data: bytes, where: str) -> Plain:
    """What `torch.save` wrote, if it is tensors and plain containers; ValueError otherwise."""
    clean = _written_anew(data, where)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loaded = torch.load(clean, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler fails in any way on what was made to make it fail
        raise ValueError(
            f"{where} holds more than tensors and plain containers, or is damaged: {_reason(error)}"
        ) from error
    _Plain(where, len(data)).check(loaded)
    return loaded


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    inner = re.search(r"WeightsUnpickler error: (.*)", text)
    return (inner[1] if inner else text)[:160] or type(error).__name__


def _written_anew(data: bytes, where: str) -> IO[bytes]:
    """The entries of a file of torch.save as another one, once they were found in order.

    PyTorch compares no sums, unpacks whatever is packed, and gives memory that was never written
    for an entry that is marked as a folder. What it sees here is only what was checked.
    Raises ValueError unless nothing is packed and all sums are right.
    """
    clean = io.BytesIO()
    if not data.startswith(TORCH_MAGIC):
        raise ValueError(f"{where} is no file of torch.save: it begins with {data[:6].hex()!r}")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive, zipfile.ZipFile(clean, "w") as target:
            entries = archive.infolist()
            if len(entries) > MOST_ENTRIES:
                raise ValueError(f"{len(entries):,} entries")
            if len({entry.filename for entry in entries}) < len(entries):
                raise ValueError("two entries of one name")
            for entry in entries:
                if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
                    raise ValueError(f"{entry.filename!r:.60} is packed or encrypted")
                if entry.filename.endswith(".pkl") and entry.file_size > MOST_PICKLE_BYTES:
                    raise ValueError(f"{entry.filename!r:.60} has {entry.file_size:,} bytes")
            if sum(entry.file_size for entry in entries) > len(data):
                raise ValueError("its entries overlap")
            for entry in entries:
                target.writestr(zipfile.ZipInfo(entry.filename), archive.read(entry))
    except Exception as error:  # zipfile raises half a dozen kinds
        raise ValueError(
            f"{where} holds more than tensors and plain containers, or is damaged: {_reason(error)}"
        ) from error
    clean.seek(0)
    return clean


class _Plain:
    """Whether a loaded value is plain, and no larger than the file that it came from."""

    def __init__(self, where: str, file_bytes: int) -> None:
        self.where, self.left = where, SHARED * file_bytes
        self.seen: set[int] = set()  # containers, which may be in several places, and in themselves

    def check(self, value: object, at: str = "", depth: int = 0) -> None:
        where = f"{self.where}{at}"
        if value is None or type(value) in (str, int, float, bool):
            return
        if isinstance(value, Tensor):
            self._check_tensor(value, where)
        elif not (isinstance(value, dict) or type(value) is list or type(value) is tuple):
            raise ValueError(
                f"{where} is a {type(value).__name__}; only tensors, names, numbers and plain "
                f"containers are let through"
            )
        elif depth > MOST_DEPTH:
            raise ValueError(f"{self.where} nests more than {MOST_DEPTH} deep")
        elif id(value) not in self.seen:
            self.seen.add(id(value))
            for key, item in list(value.items() if isinstance(value, dict) else enumerate(value)):
                if isinstance(value, dict) and not isinstance(key, str):
                    raise ValueError(f"{where}: key {key!r:.60} is no name")
                self.check(item, f"{at}[{key!r:.200}]", depth + 1)

    def _check_tensor(self, tensor: Tensor, where: str) -> None:
        if tensor.is_nested or tensor.layout is not torch.strided or tensor.is_quantized:
            raise ValueError(f"{where}: a sparse or quantized tensor, where a plain one is due")
        if tensor.device.type != "cpu" or tensor.dtype not in DTYPES:
            raise ValueError(f"{where}: a tensor of {tensor.dtype} on {tensor.device}")
        size = tensor.numel() * tensor.element_size()
        self.left -= size
        if size > tensor.untyped_storage().nbytes() or self.left < 0:
            raise ValueError(f"{where}: a tensor of {size:,} bytes, which the file does not hold")
