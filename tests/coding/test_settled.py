"""Integer slices: proper, complete, and the code's own length."""

import math

import torch
import torch.nn.functional as F

from fairway.coding.settled import STEPS_PER_OCTAVE, log_probs_of, settled_ends, slices_of
from fairway.coding.symbols import TextDecoder, TextEncoder


def some_steps(rows: int = 200, vocab: int = 300) -> torch.Tensor:
    logits = 3 * torch.randn(
        rows, vocab, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )
    return (logits * STEPS_PER_OCTAVE / math.log(2)).round()


def test_no_slice_is_empty_and_all_of_them_are_the_softmax() -> None:
    steps = some_steps()
    expected = F.log_softmax(steps * math.log(2) / STEPS_PER_OCTAVE, dim=-1)
    ends = settled_ends(steps.clone())
    assert (ends.diff(dim=-1) >= 1).all()
    assert (ends[:, 0] >= 1).all()
    likely = expected > -10
    assert (log_probs_of(ends) - expected)[likely].abs().max() < 1e-3


def test_the_code_is_as_long_as_its_slices_say() -> None:
    ends = settled_ends(some_steps())
    symbols = torch.arange(len(ends)) * 7 % ends.size(1)
    found, encoder = slices_of(ends, symbols), TextEncoder()
    encoder.push_slices(*(part.numpy() for part in found))
    data = encoder.finish()
    decoder = TextDecoder(data)
    assert decoder.pop_slices(ends.numpy()).tolist() == symbols.tolist()
    # The end is told by the file: a last byte that would be zero is left out.
    assert abs(8 * len(data) - found.nats().sum().item() / math.log(2)) < 16
