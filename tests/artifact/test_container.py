"""The one file: exact round trips, and no damage that goes unseen."""

import base64
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import Tensor

from fairway.artifact import container
from fairway.artifact.container import pack, unpack
from fairway.artifact.sections import Refused
from fairway.quant.lowrank import LowRankConfig, fit_low_rank
from fairway.quant.quantized import FineColumns, QuantizedTensor
from fairway.quant.schemes import RoundRows

Tensors = dict[str, QuantizedTensor | Tensor]


def small() -> tuple[dict[str, Any], bytes, Tensors, dict[str, bytes]]:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(6, 10, generator=generator)
    codes, scale = RoundRows(5, 4.0).round_rows(weight)
    low_rank = fit_low_rank(torch.randn(6, 10, generator=generator), LowRankConfig(rank=2, group=4))
    shape = (2, 3, 10)
    tensors: Tensors = {
        "plain": QuantizedTensor(codes=codes, scale=scale, bits=5, shape=shape),
        "gate": torch.tensor(0.25).half(),
        "mended": QuantizedTensor(
            codes=codes, scale=scale, bits=5, shape=(6, 10), low_rank=low_rank
        ),
        "finer": QuantizedTensor(
            codes=codes,
            scale=scale,
            bits=5,
            shape=(6, 10),
            fine=FineColumns(starts=(1, 7), size=2, bits=7, scale=(scale / 4).half()),
            low_rank=fit_low_rank(
                weight, LowRankConfig(rank=2, a_bits=3, group=4, form="published")
            ),
        ),
        "exact": torch.randn(3, 2, generator=generator),
        "scales": torch.randn(7, generator=generator).half(),
        "none": torch.zeros(0).half(),
    }
    config = {"model": {"layers": [1, 2], "cap": None, "name": "Größe"}, "rate": 0.1}
    return config, b"tokenizer" * 9, tensors, {"notes": b"\x00\x01", "empty": b""}


def equal(left: QuantizedTensor | Tensor, right: QuantizedTensor | Tensor) -> bool:
    if isinstance(left, Tensor) or isinstance(right, Tensor):
        assert isinstance(left, Tensor)
        assert isinstance(right, Tensor)
        return left.dtype == right.dtype and torch.equal(left, right)
    return (
        torch.equal(left.codes, right.codes)
        and torch.equal(left.scale, right.scale)
        and (left.bits, left.shape) == (right.bits, right.shape)
        and (left.fine is None) == (right.fine is None)
        and torch.equal(left.dequantize(), right.dequantize())
    )


def test_everything_comes_back() -> None:
    config, tokenizer, tensors, extras = small()
    artifact = unpack(pack(config, tokenizer, tensors, extras))
    assert artifact.config == config
    assert artifact.tokenizer == tokenizer
    assert artifact.extras == extras
    assert list(artifact.tensors) == list(tensors)
    assert all(equal(artifact.tensors[name], tensor) for name, tensor in tensors.items())


@st.composite
def tensors(draw: st.DrawFn) -> QuantizedTensor | Tensor:
    if draw(st.booleans()):
        dtype = draw(st.sampled_from([np.float16, np.float32]))
        shape = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5)
        return torch.from_numpy(draw(hnp.arrays(dtype, shape, elements=st.integers(-99, 99))))
    bits = draw(st.integers(2, 8))
    top = 2 ** (bits - 1) - 1
    shape = draw(hnp.array_shapes(min_dims=2, max_dims=3, max_side=9))
    codes = draw(hnp.arrays(np.int8, shape, elements=st.integers(-top, top)))
    codes = torch.from_numpy(codes.reshape(-1, shape[-1]))
    scale = torch.rand(len(codes)).half()
    size = draw(st.integers(1, shape[-1]))
    places = draw(st.sets(st.integers(0, shape[-1] // size - 1)))
    if not places:
        return QuantizedTensor(codes=codes, scale=scale, bits=bits, shape=shape)
    starts = tuple(sorted(place * size for place in places))
    fine = FineColumns(starts=starts, size=size, bits=8, scale=(scale / 4).half())
    mask = fine.mask(shape[-1])
    codes[:, mask] = (codes[:, mask].int() * 4).clamp(-127, 127).to(torch.int8)
    return QuantizedTensor(codes=codes, scale=scale, bits=bits, shape=shape, fine=fine)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(
    config=st.dictionaries(st.text(max_size=5), json_values, max_size=3),
    tokenizer=st.binary(max_size=50),
    weights=st.dictionaries(st.text(max_size=8), tensors(), max_size=5),
    extras=st.dictionaries(st.text(max_size=5), st.binary(max_size=20), max_size=2),
)
def test_unpacking_returns_what_was_packed(
    config: dict[str, Any], tokenizer: bytes, weights: Tensors, extras: dict[str, bytes]
) -> None:
    data = pack(config, tokenizer, weights, extras)
    artifact = unpack(data)
    assert (artifact.config, artifact.tokenizer, artifact.extras) == (config, tokenizer, extras)
    assert artifact.tensors.keys() == weights.keys()
    assert all(equal(artifact.tensors[name], tensor) for name, tensor in weights.items())
    assert sum(artifact.sizes.values()) == len(data)


def test_the_state_dict_is_what_the_codes_stand_for() -> None:
    _, _, packed, _ = small()
    weights = unpack(pack({}, b"", packed)).state_dict()
    for name, tensor in packed.items():
        expected = tensor.dequantize() if isinstance(tensor, QuantizedTensor) else tensor.float()
        assert weights[name].dtype == torch.float32
        assert torch.equal(weights[name], expected)


def test_same_input_same_bytes_whatever_the_order_of_config_keys() -> None:
    config, tokenizer, packed, extras = small()
    turned = dict(reversed(config.items()))
    assert pack(config, tokenizer, packed, extras) == pack(turned, tokenizer, packed, extras)


def test_every_flipped_byte_is_refused() -> None:
    data = bytearray(pack(*small()))
    for place in range(len(data)):
        for flip in (0x01, 0x80):
            data[place] ^= flip
            with pytest.raises(ValueError, match=r"damaged|cut off|not a fairway artifact"):
                unpack(bytes(data))
            data[place] ^= flip


def test_damage_is_named_by_its_section() -> None:
    data = bytearray(pack(*small()))
    sizes = unpack(bytes(data)).sizes
    place = 0
    for name, size in sizes.items():
        if name == "checksum" or size == 0:
            continue
        data[place + size - 1] ^= 1
        with pytest.raises(ValueError, match=f"section '{name}' is damaged"):
            unpack(bytes(data))
        data[place + size - 1] ^= 1
        place += size


def test_every_truncation_and_every_addition_is_refused() -> None:
    data = pack(*small())
    for length in range(len(data)):
        with pytest.raises(ValueError, match=r"damaged|cut off|not a fairway artifact"):
            unpack(data[:length])
    with pytest.raises(ValueError, match="too many follow"):
        unpack(data + b"\x00")


@pytest.mark.parametrize("data", [b"", b"FWY", b"PK\x03\x04" + bytes(200), b"FWY2" + bytes(200)])
def test_foreign_files_are_refused_by_their_first_bytes(data: bytes) -> None:
    with pytest.raises(ValueError, match="not a fairway artifact"):
        unpack(data)


def test_an_artifact_of_the_first_release_is_still_read() -> None:
    """Golden bytes: if this fails, every artifact already published stops loading."""
    artifact = unpack(base64.b85decode(FIRST_RELEASE))
    config, tokenizer, packed, extras = small()
    assert (artifact.config, artifact.tokenizer, artifact.extras) == (config, tokenizer, extras)
    del packed["finer"]  # which that release did not know
    assert list(artifact.tensors) == list(packed)
    mended = artifact.tensors["mended"]
    assert isinstance(mended, QuantizedTensor)
    assert mended.codes[0].tolist() == [-4, -5, -1, -2, 3, 3, -1, -8, 1, -5]
    assert mended.low_rank is not None


@pytest.mark.parametrize("config", [{"a": (1, 2)}, {1: 2}, {"a": float("nan")}, {"a": b"x"}])
def test_a_config_that_json_would_change_is_refused(config: dict) -> None:
    with pytest.raises(ValueError, match="JSON"):
        pack(config, b"", {})


def test_a_tensor_of_another_type_is_named() -> None:
    with pytest.raises(ValueError, match=r"'ids' is torch\.int64"):
        pack({}, b"", {"ids": torch.zeros(3, dtype=torch.int64)})


FIRST_RELEASE = (
    "Mps!e4FLcEP{GqIANBzt90zu@)q+?oTsA%++nA+pmZ9gLve?E-8Hn3bUx|idiK6;&xL&Rx*ep6-eeeIKe&Q&OV!m"
    "sPfpb|=-!QPAM}ej~7Y-H<62L?!+O@ki_z8DGKWzYg=yemp2C3*wtBga>n}~A!n7{XB+rOW1guEkpbV!sBv`bw5)"
    "-M5S;nx%h#-N~@nrBITIVc>T11)S;(T3{rK?11C@?b|YZRvo(Uaf_))!a2a!iw+>3aXOfMySnn2hyb{!YI#Y9!Q`"
    "(4aLEK7nU2kvW^FGOo9mD4huF`xr5GoLE?pYac}ReKE<;KnZKgT2AlV}jD<KjW2Q!cbzfs#poDn%TNfZ*E=I)L0U"
    "uBR_>Giq-n1@Dd!y59ZgP48w_u<+&<Pc_#ENrGk<20wsSkc1Alz_kEb}u|%k`1{fj`-m&Y^W_NvsvsvF24HMI9LI"
    "dBPy@4)sYfwk1X#BrF__zpNs-^oy2bt1X2jCMHyarjbHZNJat&E0pp2od+wF@%o((&K|v4+qPmfG&C?VG&D3cFfl"
    "YiJ}fLFEG#HOQ%FVv046)nu@NRKG`BaqIl8&ILQ_aa1X+k1`F*%mO)M?_hh+^Ekp_Z3KfgRaKL7z}IAM~#%MRJdg"
    "cP)2wpq_{94~cL<+gqw{Lz>N2d=d"
)


@pytest.mark.parametrize(
    "fine",
    [
        ["fine", 8, 2],
        ["fine", 8, 2, 9],
        ["fine", 8, 2, 4, 5],
        ["fine", 8, 2, 4, 2],
        ["fine", 9, 2, 4],
        ["fine", 8, 0, 4],
        ["fine", 8, 2, -1],
        ["fine", 8, 2, 1 << 40],
        ["finer", 8, 2, 4],
    ],
)
def test_a_line_whose_fine_columns_cannot_be_is_refused(fine: list) -> None:
    with pytest.raises(Refused, match=r"fine columns|lists a tensor"):
        container._line(["w", "codes", [6, 10], 10, 5, fine])
    with pytest.raises(Refused):
        container._line(["w", "half", [6, 10], ["fine", 8, 2, 4]])
