"""Ranks that share the work of a step, on gloo: what they train, and how they end."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from fairway.runtime.distributed import Ranks
from fairway.train.exchange import GradientExchange, make_buckets

HERE = Path(__file__).resolve()


def start_ranks(part: str, world_size: int, folder: Path) -> subprocess.Popen[str]:
    script = str(HERE.with_name("ranks_of_a_miniature.py"))
    return subprocess.Popen(
        [sys.executable, script, part, str(world_size), str(folder)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def found_by(part: str, world_size: int, folder: Path) -> list[dict]:
    """What each rank found."""
    process = start_ranks(part, world_size, folder)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(world_size)]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """What two ranks found, all in one start."""
    return found_by("pr1413", 2, tmp_path_factory.mktemp("ranks"))


def check_equality(results: list[dict]) -> None:
    """To the last bit where each has at most one micro-batch, for sums have one order; else to
    within its rounding. Losses, norms, weights and the optimizer's state; whatever overlaps."""
    first, *others = (result["equal"] for result in results)
    for kind, found in first.items():
        assert all(other[kind]["overlapped"] == found["overlapped"] for other in others)
        assert len(set(found["alone"]["losses"])) > 1
        if kind == "more":
            for what in ("losses", "norms", "sample"):
                together, alone = found["overlapped"][what], found["alone"][what]
                assert together == pytest.approx(alone, rel=1e-4, abs=1e-6)
            continue
        for how in found:
            assert found[how] == found["alone"], (kind, how)


def test_two_ranks_train_what_one_trains(results: list[dict]) -> None:
    assert results[0]["equal"].keys() == {"pr1413", "more", "fewer"}
    check_equality(results)


@pytest.mark.slow
def test_eight_ranks_train_what_one_trains(tmp_path: Path) -> None:
    check_equality(found_by("pr1413,pr2135,sota254,pocket", 8, tmp_path))


def test_a_gradient_that_one_rank_breaks_stops_all_before_any_weight_is_touched(
    results: list[dict],
) -> None:
    """One with an owner, one without."""
    first, *others = (result["broken"] for result in results)
    assert all(other == first for other in others)
    assert first.keys() == {"blocks.1.mlp.up.weight", "embed.weight"}
    for name, (step, tensor, said) in first.items():
        assert (step, tensor) == (3, name)
        assert f"the gradient of {name}" in said


def test_the_rank_that_waits_knows_its_share(results: list[dict]) -> None:
    waits, works = (result["waiting_share"] for result in results)
    assert 0.5 < waits <= 1.0
    assert 0.0 <= works < waits


@pytest.mark.slow
@pytest.mark.parametrize("how", ["kill", "stop", "hang", "die"])
def test_a_rank_lost_amid_its_messages_ends_the_others_by_name(how: str, tmp_path: Path) -> None:
    process = start_ranks(f"lost {how}", 3, tmp_path)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 3, errors
    for rank in (0, 1):
        told = [line for line in errors.splitlines() if line.startswith(f"rank {rank} ")]
        assert len(told) == 1, errors
        assert "rank 2 (" in told[0]


def parameters(*shapes: tuple[int, ...]) -> dict[str, nn.Parameter]:
    return {f"{i}": nn.Parameter(torch.randn(shape)) for i, shape in enumerate(shapes)}


def test_every_gradient_is_in_one_bucket_and_a_bucket_has_one_matrix_for_a_rank() -> None:
    named = parameters((4, 6), (6, 4), (3,), (4, 6), (5, 5), (4, 6), (4, 6), (), (2, 7))
    owners = {"6": 0, "5": 1, "3": 2, "1": 0, "0": 1, "4": 0}
    buckets = make_buckets(named, owners, Ranks(0, 3))
    assert sorted(name for bucket in buckets for name in bucket.names) == sorted(named)
    owned = [bucket for bucket in buckets if bucket.names[0] in owners]
    # Backward fills the last layers first.
    assert [bucket.names for bucket in owned] == [["6", "5", "3"], ["4"], ["1", "0"]]
    assert [bucket.sizes for bucket in owned] == [[24, 24, 24], [25, 0, 0], [24, 24, 0]]
    (common,) = buckets[3:]
    assert (common.names, common.sizes) == (["8", "7", "2"], [6, 6, 6])  # 18 numbers


def test_one_rank_sends_nothing_and_fills_in_what_is_missing() -> None:
    named = parameters((2, 2), (3,))
    named["0"].grad = torch.full((2, 2), 2.0)
    exchange = GradientExchange(named, {}, Ranks())
    loss, norms, gradients = exchange.finish(torch.tensor(1.5))
    assert loss == 1.5
    assert norms.tolist() == [4.0, 0.0]
    assert [tuple(gradient.shape) for gradient in gradients] == [(2, 2), (3,)]
    assert not exchange.buckets
