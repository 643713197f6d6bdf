"""docs/format.md against the package: a reader that knows only the page reads what is packed."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fairway.artifact.container import pack, unpack
from fairway.quant.quantized import LowRank, QuantizedTensor

from . import plain_reader

PAGE = (Path(__file__).parents[2] / "docs" / "format.md").read_text(encoding="utf-8")
Tensors = dict[str, QuantizedTensor | Tensor]


def halves(rng: np.random.Generator, *shape: int) -> Tensor:
    return torch.from_numpy(rng.normal(0, 0.1, shape)).half()


def whole(rng: np.random.Generator, low: int, high: int, *shape: int) -> Tensor:
    return torch.from_numpy(rng.integers(low, high + 1, shape).astype(np.int8))


def quantized(rng: np.random.Generator, codes: np.ndarray, bits: int, *shape: int) -> Any:
    top = 2 ** (bits - 1) - 1
    codes = np.rint(codes).clip(-top, top).astype(np.int8)
    return QuantizedTensor(
        codes=torch.from_numpy(codes),
        scale=halves(rng, len(codes)).abs(),
        bits=bits,
        shape=shape or codes.shape,
    )


def low_rank(
    rng: np.random.Generator, rows: int, columns: int, rank: int, a_bits: int, b_bits: int
) -> LowRank:
    group = 4
    a, b = 2 ** (a_bits - 1), 2 ** (b_bits - 1)
    return LowRank(
        a_codes=whole(rng, -a, a - 1, rows, rank),
        a_scale=halves(rng, rank),
        b_codes=whole(rng, -b, b - 1, rank, columns),
        b_scale=halves(rng, rank, -(-columns // group)),
        a_bits=a_bits,
        b_bits=b_bits,
        group=group,
    )


def plain() -> Tensors:
    rng = np.random.default_rng(0)
    return {
        **{f"{bits} bits": quantized(rng, rng.normal(0, 2**bits / 9, (7, 12)), bits)
           for bits in range(2, 9)},
        "folded": quantized(rng, rng.normal(0, 3, (15, 6)), 5, 3, 5, 6),
        "single": quantized(rng, np.array([[-1]]), 2),
        "tall": quantized(rng, rng.normal(0, 3, (300, 1)), 6),
        "broad": quantized(rng, rng.normal(0, 2, (30, 600)), 4),  # groups of at most 2048 codes
        "wide": quantized(rng, rng.normal(0, 3, (2, 2100)), 4),
        "zeros": quantized(rng, np.zeros((4, 4)), 6),
    }  # fmt: skip


def mended() -> Tensors:
    rng = np.random.default_rng(1)
    before = quantized(rng, rng.normal(0, 3, (9, 10)), 6)
    tensors: Tensors = {"before": before}
    for a_bits, b_bits, shape in [(2, 4, (9, 10)), (1, 1, (3, 3, 10)), (8, 8, (9, 10))]:
        rank = a_bits
        tensors[f"{a_bits} and {b_bits}"] = QuantizedTensor(
            codes=before.codes,
            scale=before.scale,
            bits=6,
            shape=shape,
            low_rank=low_rank(rng, 9, 10, rank, a_bits, b_bits),
        )
    return tensors | {"after": quantized(rng, rng.normal(0, 3, (9, 10)), 6)}


def floats() -> Tensors:
    rng = np.random.default_rng(2)
    return {
        "gate": torch.tensor(0.25).half(),
        "table": halves(rng, 3, 4, 5),
        "none": torch.zeros(0, 3).half(),
        "exact": torch.from_numpy(rng.normal(size=(3, 2))).float(),
        "edges": torch.tensor([0.0, -0.0, np.inf, 1e-45, 3e38]),
        "small": torch.tensor([6e-8, 65504.0, -np.inf]).half(),
        "one": torch.tensor(2.0),
    }


def learned() -> Tensors:
    """Matrices that make the writer use all it can tell a reader: each choice is other than 0."""
    rng = np.random.default_rng(3)
    loud = np.exp(0.9 * rng.normal(size=48))
    base = rng.normal(0, 20, (40, 64))
    near = base + rng.integers(-1, 2, base.shape)
    return {
        "query": quantized(rng, rng.normal(size=(48, 48)) * loud * 4, 6),
        "key": quantized(rng, rng.normal(size=(24, 48)) * loud * 4, 6),
        "up": quantized(rng, rng.normal(size=(30, 48)) * loud[::-1] * 4, 6),
        "down": quantized(rng, rng.normal(size=(30, 48)) * loud[::-1] * 4, 6),
        "leaning": quantized(rng, rng.normal(0, 3, (40, 48)) + 4 * rng.normal(size=48), 6),
        "alike": quantized(rng, np.vstack([base, near, -base, near]), 8),
        "alike again": quantized(rng, np.vstack([base, base]), 8),
        "echo": quantized(rng, np.vstack([base / 20] * 3), 3),
    }


def mixed() -> Tensors:
    """Kinds in turn, so that each stream is read in several places."""
    kinds = [list(kind().items()) for kind in (plain, mended, floats)]
    return {f"{i}.{name}": t for i, row in enumerate(zip(*kinds, strict=False)) for name, t in row}


def assert_equal(read: Any, tensor: QuantizedTensor | Tensor) -> None:
    if isinstance(tensor, Tensor):
        assert read.dtype == tensor.numpy().dtype
        assert read.shape == tuple(tensor.shape)
        assert read.tobytes() == tensor.numpy().tobytes()
        return
    pairs = [(read.codes, tensor.codes), (read.scale, tensor.scale)]
    if tensor.low_rank is not None:
        names = ("a_codes", "a_scale", "b_codes", "b_scale")
        pairs += [(getattr(read.low_rank, n), getattr(tensor.low_rank, n)) for n in names]
        assert read.low_rank.group == tensor.low_rank.group
    for ours, theirs in pairs:
        assert np.array_equal(ours, theirs.numpy())
    expected = tensor.dequantize().numpy()
    assert read.weight().dtype == expected.dtype
    assert read.weight().shape == expected.shape
    if tensor.low_rank is None:
        assert np.array_equal(read.weight(), expected)
    else:  # the order of a sum over `rank` is the machine's
        np.testing.assert_allclose(read.weight(), expected, rtol=1e-5, atol=1e-6)


def assert_both_read(data: bytes) -> plain_reader.Artifact:
    read, artifact = plain_reader.read(data), unpack(data)
    assert read.config == artifact.config
    assert read.tokenizer == artifact.tokenizer
    assert read.extras == artifact.extras
    assert list(read.tensors) == list(artifact.tensors)
    for name, tensor in artifact.tensors.items():
        assert_equal(read.tensors[name], tensor)
    return read


@pytest.mark.parametrize("tensors", [dict, plain, mended, floats, learned, mixed])
def test_a_reader_of_the_page_reads_what_is_written(tensors: Any) -> None:
    packed = tensors()
    read = assert_both_read(pack({"model": {"name": "Größe"}, "rate": 0.1}, b"FWYT1bytes", packed))
    for name, tensor in packed.items():
        assert_equal(read.tensors[name], tensor)


@pytest.mark.parametrize("size", [0, 1, 9_000])
def test_every_codec_and_extra_is_read(size: int) -> None:
    rng = np.random.default_rng(4)
    noise, text = rng.bytes(size), b"".join(b"%d\n" % (i * i) for i in range(size))
    data = pack(
        {}, text, {}, {"": b"unnamed", "noise": noise, "text": text[::-1], "short": text[:999]}
    )
    read = assert_both_read(data)
    assert (read.tokenizer, read.extras["noise"]) == (text, noise)
    if size > 4096:
        assert {codec for _, codec, _, _ in read.sections} == {"stored", "brotli", "lzma"}


def test_the_codes_use_every_choice_of_a_writer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the reader could be wrong where no test looks."""
    told: list[list[int]] = []  # the numbers of each matrix
    number, matrix = plain_reader.RangeDecoder.number, plain_reader.read_matrix

    def watched_number(self: plain_reader.RangeDecoder, size: int) -> int:
        told[-1].append(number(self, size))
        return told[-1][-1]

    def watched_matrix(*arguments: Any) -> np.ndarray:
        told.append([])
        return matrix(*arguments)

    monkeypatch.setattr(plain_reader.RangeDecoder, "number", watched_number)
    monkeypatch.setattr(plain_reader, "read_matrix", watched_matrix)
    plain_reader.read(pack({}, b"", learned()))
    _, parents, centred, referring = zip(*(numbers[:4] for numbers in told), strict=True)
    assert 0 in parents
    assert max(parents) > 1
    assert set(centred) == set(referring) == {0, 1}
    references = [len(set(numbers[4:])) for numbers in told]
    assert max(references) > 8


@st.composite
def any_tensor(draw: st.DrawFn) -> QuantizedTensor | Tensor:
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    rows, columns = draw(st.integers(1, 40)), draw(st.integers(1, 12))
    kind = draw(st.sampled_from(["codes", "alike", "half", "float"]))
    if kind in ("half", "float"):
        values = torch.from_numpy(rng.normal(size=(rows, columns)))
        return values.half() if kind == "half" else values.float()
    bits = draw(st.integers(2, 8))
    codes = rng.normal(0, draw(st.floats(0.1, 2**bits)), (rows, columns))
    if kind == "alike":
        codes = codes[rng.integers(0, 1 + rows // 4, rows)] + rng.normal(0, 0.4, codes.shape)
    return quantized(rng, codes, bits)


@settings(max_examples=25, deadline=None)
@given(st.lists(any_tensor(), max_size=5))
def test_whatever_is_packed_is_read(tensors: list[QuantizedTensor | Tensor]) -> None:
    assert_both_read(pack({}, b"", {str(i): tensor for i, tensor in enumerate(tensors)}))


# --- what the page shows ---


def printed_file() -> bytes:
    lines = re.findall(r"^    [0-9a-f]{4}  ((?:[0-9a-f]{2} ?)+)$", PAGE, flags=re.MULTILINE)
    return bytes.fromhex("".join(lines))


def test_the_printed_file_holds_what_the_page_says() -> None:
    read = assert_both_read(printed_file())
    assert read.config == {"note": "tiny"}
    assert read.tokenizer == b"FWYT1bytes"
    w = read.tensors["w"]
    assert w.codes.tolist() == [[1, 0, -1, 2], [0, 1, 0, -2], [3, -1, 0, 1]]
    assert w.weight().tolist() == [[0.5, 0, -0.5, 1], [0, 0.25, 0, -0.5], [0.375, -0.125, 0, 0.125]]
    assert read.tensors["gain"] == 1.5
    assert all(f'["{name}", "{codec}", {size}, {crc}]' in PAGE
               for name, codec, size, crc in read.sections)  # fmt: skip


def test_the_printed_file_is_what_is_written_today() -> None:
    """Up to the header, whose bytes are brotli's."""
    codes = np.array([[1, 0, -1, 2], [0, 1, 0, -2], [3, -1, 0, 1]], np.int8)
    scale = torch.tensor([0.5, 0.25, 0.125]).half()
    w = QuantizedTensor(codes=torch.from_numpy(codes), scale=scale, bits=3, shape=(3, 4))
    data = pack({"note": "tiny"}, b"FWYT1bytes", {"w": w, "gain": torch.tensor(1.5).half()})
    assert data[-73:-32] == printed_file()[-73:-32]


def test_the_printed_steps_are_those_of_the_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[tuple[int, ...]] = []
    read = plain_reader.RangeDecoder.read

    def watched(self: plain_reader.RangeDecoder, left: np.ndarray) -> int:
        quantile = self.offset // (self.range >> 24)
        s = read(self, left)
        steps.append((quantile, int(left[s]), int(left[s + 1]), s))
        return s

    monkeypatch.setattr(plain_reader.RangeDecoder, "read", watched)
    plain_reader.read(printed_file())
    row = r"^\| `(?:number|symbol).*?` \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|"
    printed = re.findall(row, PAGE, flags=re.MULTILINE)
    assert steps == [tuple(map(int, numbers)) for numbers in printed]


def check_values() -> Iterator[tuple[str, list[int]]]:
    wanted = PAGE[PAGE.index("To check yours by") : PAGE.index("### What is kept")]
    for label, values in re.findall(r"^\| (.+?) \| ([\d, ]+) \|$", wanted, flags=re.MULTILINE):
        yield label, [int(value) for value in values.split(",")]


def test_the_printed_constants_are_right() -> None:
    printed = dict(check_values())
    assert len(printed) == 8
    three, eight = plain_reader.first_histograms(3), plain_reader.first_histograms(127)
    tables: dict[str, Any] = {
        "P": plain_reader.power, "ENERGY": plain_reader.ENERGY.__getitem__,
        "EDGE": plain_reader.EDGE.__getitem__, "LIKE": plain_reader.LIKE.__getitem__,
        "LEFT": plain_reader.LEFT.__getitem__,
    }  # fmt: skip
    for label, values in printed.items():
        name, places = label[: label.find("(") if "(" in label else label.find("[")], []
        if name in tables:
            places = [int(place) for place in re.findall(r"[(\[](-?\d+)[)\]]", label)]
            assert [tables[name](place) for place in places] == values
    assert three[27].tolist() == printed["H[27], of 3 bits"]
    assert three[0].tolist() == printed["H[0], of 3 bits"]
    assert [eight[71].sum()] == printed["H[71], of 8 bits, its sum"]


def test_the_reader_knows_nothing_of_the_package() -> None:
    tree = ast.parse(Path(plain_reader.__file__).read_text(encoding="utf-8"))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import)
             for alias in node.names}  # fmt: skip
    names |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert names == {
        "brotli", "collections", "decimal", "hashlib", "json", "lzma", "math", "numpy", "typing",
        "zlib",
    }  # fmt: skip
