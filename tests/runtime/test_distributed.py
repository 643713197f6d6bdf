import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fairway.runtime.distributed import BUCKET_BYTES, Ranks, _buckets, supervised

HERE = Path(__file__).resolve()


def start_ranks(part: str, folder: Path, world_size: int = 2) -> list[subprocess.Popen[str]]:
    """Run `part` of ranks_at_work.py on several CPU processes that meet through a file."""
    return [
        subprocess.Popen(
            [
                sys.executable,
                str(HERE.with_name("ranks_at_work.py")),
                part,
                str(rank),
                str(world_size),
                str(folder),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(world_size)
    ]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """What two ranks found: all that needs peers, in one start, for starting takes seconds."""
    processes = start_ranks("work", tmp_path_factory.mktemp("ranks"))
    answers = [process.communicate(timeout=60) for process in processes]
    for process, (_, errors) in zip(processes, answers, strict=True):
        assert process.returncode == 0, errors
    return [json.loads(output.splitlines()[-1]) for output, _ in answers]


def test_collectives_do_what_their_names_say(results: list[dict]) -> None:
    for rank, found in enumerate(results):
        assert found["sum"] == [3.0, 3.0]
        assert found["untouched"] == [rank + 1.0] * 2  # `sum` leaves its argument alone
        assert found["mean_"] == [[1.5], [[1.5, 1.5]], [7]]  # several shapes, two dtypes
        assert found["all_gather"] == [[0.0, 0.0], [1.0, 1.0]]
        assert found["broadcast"] == 5.0
        assert found["is_main"] is (rank == 0)


def test_two_ranks_learn_what_one_learns(results: list[dict]) -> None:
    alone = results[0]["alone"]["2"]
    assert alone[-1] < 0.9 * alone[0]
    for found in results:
        assert found["together"]["2"] == pytest.approx(alone, rel=1e-4)
    assert results[0]["weights"] == results[1]["weights"]  # to the last bit


def test_ranks_with_unequal_work_neither_wait_nor_change_the_result(results: list[dict]) -> None:
    """Three micro-batches over two ranks, one over two, and one rank whose batches end."""
    for found in results:
        for micro_batches in ("3", "1"):
            alone = found["alone"][micro_batches]
            assert found["together"][micro_batches] == pytest.approx(alone, rel=1e-4)
    assert results[0]["ends"] == results[1]["ends"]
    assert "the batches ended after step 3" in results[0]["ends"][-1]


def test_all_ranks_stop_at_the_same_step_whoever_was_asked(results: list[dict]) -> None:
    assert [found["stopped_after"] for found in results] == [2, 2]
    assert results[0]["clock_steps"] == results[1]["clock_steps"]
    assert results[0]["diverged"] == results[1]["diverged"]
    assert "in step 2" in results[0]["diverged"]


def test_a_rank_that_dies_ends_the_run_and_shows_its_traceback(tmp_path: Path) -> None:
    processes = start_ranks("die", tmp_path)
    errors = [process.communicate(timeout=60)[1] for process in processes]
    assert all(process.returncode != 0 for process in processes)
    assert "rank 1 of 2 failed" in errors[1]
    assert "ZeroDivisionError" in errors[1]
    assert "in a_bug" in errors[1]
    assert "could not sum with its peers: rank 1 (" in errors[0]
    assert errors[0].count("Traceback") == 1  # the one worth reading stands alone
    assert "ZeroDivisionError" in errors[0]


@pytest.mark.slow
def test_a_rank_may_work_alone_for_longer_than_a_meeting_may_take(tmp_path: Path) -> None:
    """It packs, or prepares; that it is alive is the watchdog's affair."""
    processes = start_ranks("pack for long", tmp_path)
    errors = [process.communicate(timeout=60)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs: NCCL takes one a rank")
def test_nccl_does_what_gloo_does(tmp_path: Path) -> None:
    processes = start_ranks("collectives-on-cuda", tmp_path)
    answers = [process.communicate(timeout=120) for process in processes]
    for rank, (process, (output, errors)) in enumerate(zip(processes, answers, strict=True)):
        assert process.returncode == 0, errors
        found = json.loads(output.splitlines()[-1])
        assert found["sum"] == [3.0, 3.0]
        assert found["mean_"] == [[1.5], [[1.5, 1.5]], [7]]
        assert found["all_gather"] == [[0.0, 0.0], [1.0, 1.0]]
        assert (found["broadcast"], found["is_main"]) == (5.0, rank == 0)


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs: NCCL takes one a rank")
@pytest.mark.parametrize("part", ["kill", "stop", "hang"])
def test_a_rank_lost_under_nccl_ends_the_others(part: str, tmp_path: Path) -> None:
    began = time.monotonic()
    first, last = start_ranks(f"{part}-on-cuda", tmp_path)
    _, errors = first.communicate(timeout=90)
    last.kill()
    last.wait()
    assert first.returncode
    assert time.monotonic() - began < 60
    assert "rank 1 (" in errors or "NCCL" in errors  # the library may be the first to notice


def test_one_process_needs_no_peers() -> None:
    ranks = Ranks()
    value = torch.tensor([1.0, 2.0])
    with ranks.running(torch.device("cpu")):
        assert ranks.is_main
        assert ranks.sum(value) is value
        assert ranks.broadcast(value) is value
        assert torch.equal(ranks.all_gather(value), value[None])
        ranks.mean_([value])
        ranks.barrier()
    assert value.tolist() == [1.0, 2.0]
    assert supervised(lambda: 5, ranks) == 5


def test_torchrun_tells_who_we_are() -> None:
    assert Ranks.from_env({}) == Ranks(0, 1, 0)
    env = {"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "3", "HOME": "/"}
    assert Ranks.from_env(env) == Ranks(rank=3, world_size=8, local_rank=3)
    with pytest.raises(ValueError, match=r"LOCAL_RANK not set while .* `torchrun"):
        Ranks.from_env({"RANK": "0", "WORLD_SIZE": "1"})
    with pytest.raises(ValueError, match=r"rank 2 \(local 0\) of 2 cannot be.*torchrun"):
        Ranks(2, 2)


def test_buckets_hold_every_tensor_once_in_order_and_are_not_too_large() -> None:
    half = torch.empty(BUCKET_BYTES // 8, dtype=torch.float32)  # half a bucket
    tensors: list[Tensor] = [half, half, half, torch.ones(2, dtype=torch.int64), half, half * 1]
    buckets = list(_buckets(tensors))
    assert [id(t) for bucket in buckets for t in bucket] == [id(t) for t in tensors]
    assert [len(bucket) for bucket in buckets] == [2, 1, 1, 2]
