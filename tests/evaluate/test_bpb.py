import math

import pytest
import torch

from fairway.evaluate.bpb import Score


def test_the_score_is_a_ratio_of_sums_not_a_mean_of_ratios() -> None:
    score = Score()
    score.add(torch.tensor([1.0, 2.0]), num_bytes=3)
    score.add(torch.tensor([6.0]), num_bytes=1)
    assert score.bits_per_byte == pytest.approx(9.0 / math.log(2) / 4)
    assert score.nats_per_token == pytest.approx(3.0)


def test_a_million_small_nats_add_up_exactly() -> None:
    score = Score()
    for _ in range(100):
        score.add(torch.full((10_000,), 0.1, dtype=torch.float32), num_bytes=1)
    assert score.nats == pytest.approx(
        1e6 * float(torch.tensor(0.1, dtype=torch.float32)), abs=1e-6
    )


def test_no_bytes_no_score() -> None:
    with pytest.raises(ValueError, match="no byte was scored"):
        _ = Score().bits_per_byte
