"""Arithmetic coding of text symbols."""

import hashlib
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fairway.coding.symbols import STEPS, TextDecoder, TextEncoder, exp2_units, integer_cdf


def log_softmax(logits: np.ndarray) -> np.ndarray:
    logits = logits.astype(np.float64)
    logits -= logits.max(axis=-1, keepdims=True)
    return (logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))).astype(np.float32)


def text(num: int, vocab: int, spread: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Log-probabilities (num, vocab), and a symbol drawn from each."""
    rng = np.random.default_rng(seed)
    log_probs = log_softmax(rng.normal(0, spread, (num, vocab)))
    gumbel = rng.gumbel(size=log_probs.shape)
    return log_probs, (log_probs + gumbel).argmax(axis=1)


def encode(log_probs: np.ndarray, symbols: np.ndarray) -> bytes:
    encoder = TextEncoder()
    for row, symbol in zip(log_probs, symbols, strict=True):
        encoder.push(row, int(symbol))
    return encoder.finish()


def decode(log_probs: np.ndarray, data: bytes) -> list[int]:
    decoder = TextDecoder(data)
    symbols = [decoder.pop(row) for row in log_probs]
    decoder.finish()
    return symbols


@settings(max_examples=60)
@given(
    logits=hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=40),
        elements=st.floats(-80, 80, width=32),
    ),
    data=st.data(),
)
def test_what_was_pushed_is_popped(logits: np.ndarray, data: st.DataObject) -> None:
    log_probs = log_softmax(logits)
    pick = st.integers(0, logits.shape[1] - 1)
    symbols = np.array(data.draw(st.lists(pick, min_size=len(logits), max_size=len(logits))))
    assert decode(log_probs, encode(log_probs, symbols)) == symbols.tolist()


@pytest.mark.parametrize(("vocab", "num"), [(2, 4000), (1024, 1000), (8192, 300)])
def test_the_bytes_are_as_many_as_the_entropy_says(vocab: int, num: int) -> None:
    log_probs, symbols = text(num, vocab, spread=3.0)
    ideal_bits = -log_probs[np.arange(num), symbols].astype(np.float64).sum() / math.log(2)
    num_bits = 8 * len(encode(log_probs, symbols))
    assert ideal_bits - 8 < num_bits < ideal_bits + 0.001 * num + 16


@pytest.mark.parametrize("vocab", [1024, 8192, 65536])
def test_slices_cost_less_than_a_thousandth_of_a_bit_per_symbol(vocab: int) -> None:
    log_probs, _ = text(4, vocab, spread=3.0)
    cdf = integer_cdf(log_probs)
    p = np.exp(log_probs.astype(np.float64))
    sizes = np.diff(cdf, axis=1) / cdf[:, -1:]
    overhead = (p * (log_probs / math.log(2) - np.log2(sizes))).sum(axis=1)
    assert overhead.max() < (1e-3 if vocab < 65536 else 2e-3)
    assert np.abs(overhead).max() < 1e-4


@given(
    hnp.arrays(np.float32, st.integers(1, 300), elements=st.floats(-1000, 1000, width=32)),
)
def test_every_symbol_owns_a_slice(logits: np.ndarray) -> None:
    cdf = integer_cdf(log_softmax(logits))
    assert cdf[0] == 0
    assert (np.diff(cdf) >= 1).all()


def test_an_impossible_symbol_can_still_be_coded() -> None:
    log_probs = np.array([0.0, -np.inf, -np.inf], dtype=np.float32)
    symbols = np.array([0, 1, 0, 2])
    data = encode(np.tile(log_probs, (4, 1)), symbols)
    assert decode(np.tile(log_probs, (4, 1)), data) == symbols.tolist()


def test_a_batch_and_one_by_one_are_the_same_bytes() -> None:
    log_probs, symbols = text(60, 50, spread=2.0)
    encoder = TextEncoder()
    for start in range(0, 60, 20):
        encoder.push_many(log_probs[start : start + 20], symbols[start : start + 20])
    data = encoder.finish()
    assert data == encode(log_probs, symbols)
    decoder = TextDecoder(data)
    popped = [decoder.pop_many(log_probs[start : start + 30]) for start in (0, 30)]
    assert np.concatenate(popped).tolist() == symbols.tolist()


def test_float64_is_cut_into_the_slices_of_float32() -> None:
    log_probs, _ = text(3, 100, spread=2.0)
    assert np.array_equal(integer_cdf(log_probs), integer_cdf(log_probs.astype(np.float64)))


def test_carries_travel_through_full_bytes() -> None:
    """The last symbol of a slice that begins just below a carry, many times over."""
    log_probs = np.log(np.array([1 - 2**-20, 2**-20], dtype=np.float64))
    for seed in range(40):
        symbols = (np.random.default_rng(seed).random(200) < 0.5).astype(int)
        rows = np.tile(log_probs, (200, 1))
        assert decode(rows, encode(rows, symbols)) == symbols.tolist()


def test_bytes_never_change() -> None:
    """Golden bytes: if this fails, every coded text already published stops decoding."""
    log_probs = np.log(np.array([0.5, 0.25, 0.125, 0.125]))
    data = encode(np.tile(log_probs, (8, 1)), np.array([0, 1, 2, 3, 0, 0, 3, 1]))
    assert data.hex() == "5b9e"  # 1 + 2 + 3 + 3 + 1 + 1 + 3 + 2 bits, and not one more
    symbols = np.arange(3000) ** 2 % 7 % 4
    data = encode(np.tile(log_probs, (3000, 1)), symbols)
    assert hashlib.sha256(data).hexdigest()[:16] == "9c6cbb4b074d2d17"
    powers = exp2_units(np.arange(-31 * STEPS, 1, dtype=np.int32)).astype("<i4")
    assert hashlib.sha256(powers.tobytes()).hexdigest()[:16] == "e0fd22371dc08cbd"


def test_powers_of_two_are_right() -> None:
    steps = np.arange(-3 * STEPS, 1, dtype=np.int32)
    exact = np.exp2(30 + steps / STEPS)
    assert (np.abs(exp2_units(steps) - exact) <= 1).all()


@pytest.mark.parametrize("at", [0, 1, 57, 400])
def test_an_encoder_goes_on_from_its_state(at: int) -> None:
    log_probs, symbols = text(400, 64, spread=1.0)
    first = TextEncoder()
    first.push_many(log_probs[:at], symbols[:at])
    second = TextEncoder.from_state(first.state())
    second.push_many(log_probs[at:], symbols[at:])
    assert second.finish() == encode(log_probs, symbols)


def test_text_cut_short_is_refused() -> None:
    log_probs, symbols = text(400, 64, spread=1.0)
    data = encode(log_probs, symbols)
    with pytest.raises(ValueError, match="ends early"):
        decode(log_probs, data[: len(data) // 2])


def test_text_that_goes_on_is_refused() -> None:
    log_probs, symbols = text(40, 64, spread=1.0)
    data = encode(log_probs, symbols)
    with pytest.raises(ValueError, match="bytes follow the last symbol"):
        decode(log_probs, data + bytes(9))
    with pytest.raises(ValueError, match="bytes follow the last symbol"):
        decode(log_probs[:20], data)


@pytest.mark.parametrize(
    ("log_probs", "message"),
    [
        ([2.0, 1.0], "apply log_softmax"),
        ([float("nan"), -1.0], "at most 0"),
        ([], "none at all"),
        ([-1.0, -1.0], "sum to 0.7"),
        ([-0.1, -0.1], "sum to 1.8"),
    ],
)
def test_what_is_no_distribution_is_refused(log_probs: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        integer_cdf(log_probs)


def test_a_symbol_outside_the_vocabulary_is_refused() -> None:
    with pytest.raises(ValueError, match=r"symbols \[2\] under 1 distributions over 2 symbols"):
        TextEncoder().push(np.log([0.5, 0.5]), 2)
