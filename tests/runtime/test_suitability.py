"""What a machine is not good for is said before it works, with the mend."""

import pytest
import torch

from fairway.runtime import device, suitability
from fairway.runtime.device import choose_compute_dtype
from fairway.runtime.distributed import Ranks
from fairway.runtime.run_log import RunLog
from fairway.runtime.setup import Runtime
from fairway.runtime.suitability import concerns, mixed, name_bytes, names_of

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


def test_one_process_gives_no_concern() -> None:
    assert concerns(CPU, Ranks()) == []


def test_several_processes_on_one_cpu_are_warned_of_with_the_ratio_and_the_mend() -> None:
    (said,) = concerns(
        CPU,
        Ranks.from_env(
            {"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
        ),
    )
    assert "2 processes share" in said
    assert "0.45 times" in said
    assert "without torchrun" in said
    assert concerns(CPU, Ranks(1, 2, 0)) == []  # one on each of two machines


def test_ranks_tell_one_another_their_gpus() -> None:
    names = ["NVIDIA H100 80GB HBM3", "a GPU of a name without end " * 9, "NVIDIA H200"]
    told = names_of(torch.stack([name_bytes(name) for name in names]))
    assert told[0] == names[0]
    assert told[2] == names[2]
    assert names[1].startswith(told[1])
    assert len(told[1]) == suitability.NAME_BYTES


def test_mixed_gpus_are_named_by_rank() -> None:
    (said,) = mixed(["H100", "A100", "H100"])
    assert "H100: ranks 0, 2; A100: rank 1" in said
    assert "CUDA_VISIBLE_DEVICES" in said


def an_old_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")


def test_a_gpu_without_bfloat16_trains_in_float32_and_says_why(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    an_old_gpu(monkeypatch)
    monkeypatch.setattr(device, "_mlp_seconds", lambda *args: pytest.fail("nothing to measure"))
    chosen, reason = choose_compute_dtype(GPU)
    assert chosen == torch.float32
    assert "Tesla T4 has compute capability 7.5 and so no bfloat16" in reason


def test_bfloat16_on_such_a_gpu_is_refused_with_the_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    an_old_gpu(monkeypatch)
    runtime = Runtime(GPU, log=RunLog(quiet=True))
    with pytest.raises(ValueError, match=r"no bfloat16.*--compute-dtype float32"):
        runtime.measured(dtype="bfloat16")
