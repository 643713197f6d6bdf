"""Entropy coding of weight codes."""

import hashlib
import lzma

import brotli
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fairway.coding.weights import (
    decode_matrices,
    encode_matrices,
)


def encode_one(codes: np.ndarray, bits: int) -> bytes:
    return encode_matrices([(codes, bits)])


def decode_one(data: bytes, shape: tuple[int, int], bits: int) -> np.ndarray:
    return decode_matrices(data, [(shape, bits)])[0]


def trained_like(
    rows: int = 256, columns: int = 256, bits: int = 6, seed: int = 0, loudness: float = 0.5
) -> np.ndarray:
    """Codes as GPTQ leaves them: rows of one width, columns as loud as their input channel."""
    rng = np.random.default_rng(seed)
    top = 2 ** (bits - 1) - 1
    weight = rng.normal(size=(rows, columns)) * np.exp(loudness * rng.normal(size=columns))
    weight /= weight.std(axis=1, keepdims=True)
    return np.rint(weight * top / 12.85).clip(-top, top).astype(np.int8)


def order_0_bits(codes: np.ndarray) -> float:
    p = np.unique(codes, return_counts=True)[1] / codes.size
    return float(-(p * np.log2(p)).sum())


@st.composite
def matrices(draw: st.DrawFn) -> tuple[np.ndarray, int]:
    bits = draw(st.integers(2, 8))
    top = 2 ** (bits - 1) - 1
    shape = draw(hnp.array_shapes(min_dims=2, max_dims=2, max_side=30))
    return draw(hnp.arrays(np.int8, shape, elements=st.integers(-top, top))), bits


@settings(max_examples=60, deadline=None)
@given(st.lists(matrices(), max_size=4))
def test_what_was_encoded_is_decoded(many: list[tuple[np.ndarray, int]]) -> None:
    data = encode_matrices(many)
    decoded = decode_matrices(data, [((c.shape[0], c.shape[1]), bits) for c, bits in many])
    assert all(np.array_equal(c, d) for (c, _), d in zip(many, decoded, strict=True))


@pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (3000, 1), (700, 33)])
@pytest.mark.parametrize("bits", [2, 6, 8])
def test_shapes_at_the_edge_come_back(shape: tuple[int, int], bits: int) -> None:
    codes = trained_like(*shape, bits=bits) if min(shape) > 1 else np.zeros(shape, np.int8)
    codes = codes.copy()
    codes.flat[:: max(1, codes.size // 50)] = 2 ** (bits - 1) - 1
    assert np.array_equal(decode_one(encode_one(codes, bits), shape, bits), codes)


@pytest.mark.parametrize("bits", [6, 8])
def test_loud_and_quiet_columns_are_coded_below_order_0_entropy(bits: int) -> None:
    codes = trained_like(bits=bits)
    size = 8 * len(encode_one(codes, bits)) / codes.size
    assert size < 0.97 * order_0_bits(codes)


def test_general_compressors_are_beaten() -> None:
    codes = trained_like(512, 512, loudness=0.3)
    ours = len(encode_one(codes, 6))
    assert ours < 0.97 * len(brotli.compress(codes.tobytes(), quality=11))
    assert ours < 0.95 * len(lzma.compress(codes.tobytes(), preset=9 | lzma.PRESET_EXTREME))


def test_codes_without_any_structure_cost_their_entropy() -> None:
    codes = trained_like(512, 256, loudness=0.0)
    assert 8 * len(encode_one(codes, 6)) / codes.size < 1.005 * order_0_bits(codes)
    uniform = np.random.default_rng(0).integers(-31, 32, (400, 256)).astype(np.int8)
    assert 8 * len(encode_one(uniform, 6)) / uniform.size < 1.01 * np.log2(63)


@pytest.mark.parametrize(("clip_sigmas", "bits"), [(1.0, 6), (3.0, 6), (4.0, 8)])
def test_wide_codes_come_back(clip_sigmas: float, bits: int) -> None:
    """Flat tables leave the last code little room, and the library panics if rounding takes it."""
    top = 2 ** (bits - 1) - 1
    codes = np.random.default_rng(0).normal(0, top / clip_sigmas, (600, 256))
    codes = np.rint(codes).clip(-top, top).astype(np.int8)
    assert np.array_equal(decode_one(encode_one(codes, bits), (600, 256), bits), codes)


def test_constant_codes_cost_next_to_nothing() -> None:
    assert len(encode_one(np.zeros((512, 512), np.int8), 6)) < 200


def test_rows_that_resemble_earlier_ones_cost_little() -> None:
    """Embeddings of tokens that never occur all drift the same way."""
    rng = np.random.default_rng(0)
    codes = trained_like(256, 256, bits=8, loudness=0.0)
    copies = np.clip(codes[:1] + rng.integers(-1, 2, (256, 256)), -127, 127).astype(np.int8)
    alone, both = len(encode_one(codes, 8)), len(encode_one(np.vstack([codes, copies]), 8))
    assert both - alone < 0.5 * alone


def test_column_widths_are_inherited_from_a_matrix_of_the_same_inputs() -> None:
    both = trained_like(128, 512, seed=3, loudness=0.8)
    parts = [(both[:64], 6), (both[64:], 6)]
    together, apart = len(encode_matrices(parts)), sum(len(encode_one(c, b)) for c, b in parts)
    assert together < 0.99 * apart


def test_bytes_never_change() -> None:
    """Golden bytes: if this fails, every artifact already published stops decoding."""
    rng = np.random.default_rng(7)  # of PCG64 only raw integers, which numpy keeps stable
    noise = rng.bit_generator.random_raw(5 * 4096).reshape(5, 64, 64) >> np.uint64(61)
    codes = (noise.sum(axis=0).astype(np.int64) - 17) * (1 + np.arange(64) % 3) // 2
    codes[40:] = codes[:24]
    codes = codes.clip(-31, 31).astype(np.int8)
    data = encode_matrices([(codes, 6), (codes, 8), (np.sign(codes), 2)])
    assert hashlib.sha256(data).hexdigest()[:16] == "e99297f8e241d795"


def test_damaged_or_misread_codes_are_refused_or_differ() -> None:
    codes = trained_like(64, 64)
    data = encode_one(codes, 6)
    with pytest.raises(ValueError, match="cut short"):
        decode_one(data[:-1], (64, 64), 6)
    with pytest.raises(ValueError, match="bytes follow"):
        decode_one(data, (32, 64), 6)
    with pytest.raises(ValueError, match=r"damaged|follow"):
        decode_one(b"\xff" * 400, (64, 64), 6)


def test_codes_beyond_their_bits_are_refused() -> None:
    with pytest.raises(ValueError, match=r"span -31\.\.31, but 5 bits hold -15\.\.15"):
        encode_one(np.array([[-31, 31]], np.int8), 5)
    with pytest.raises(ValueError, match="expected int8"):
        encode_one(np.array([[1, 2]]), 6)  # type: ignore[arg-type]
