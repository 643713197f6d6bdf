import random
import re

import numpy as np
import pytest
import torch

from fairway.runtime import device as device_module
from fairway.runtime.device import (
    choose_compute_dtype,
    choose_device,
    machine,
    seed_everything,
)

CPU = torch.device("cpu")


def pretend_gpus(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: number > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: number)


def test_a_rank_takes_the_gpu_of_its_number_or_the_one_asked_for(monkeypatch) -> None:
    pretend_gpus(monkeypatch, 2)
    assert choose_device() == torch.device("cuda", 0)
    assert choose_device(local_rank=1) == choose_device("cuda", local_rank=1)
    assert choose_device("cuda:1") == torch.device("cuda", 1)
    assert choose_device("cpu") == CPU


def test_without_a_gpu_the_processor_is_taken_unless_a_gpu_was_asked_for(monkeypatch) -> None:
    pretend_gpus(monkeypatch, 0)
    assert choose_device() == CPU
    with pytest.raises(
        ValueError, match=r"'cuda' means GPU 0, .* sees 0 of them; use --device cpu"
    ):
        choose_device("cuda")
    with pytest.raises(ValueError, match=r"device 'tpu' is not one of cpu, cuda"):
        choose_device("tpu")


@pytest.mark.parametrize(
    ("speedup", "dtype", "words"),
    [
        (2.0, torch.bfloat16, "2.00 times as fast as float32 here"),
        (1.1, torch.float32, "1.10 times .* less than 1.15 is not worth its rounding"),
    ],
)
def test_the_faster_precision_is_chosen_and_the_reason_given(
    monkeypatch, speedup: float, dtype: torch.dtype, words: str
) -> None:
    def seconds(device: torch.device, dtype: torch.dtype, *shape: int) -> float:
        return 1.0 if dtype == torch.float32 else 1.0 / speedup

    monkeypatch.setattr(device_module, "_mlp_seconds", seconds)
    monkeypatch.setattr(device_module, "PROBE_SECONDS", 0.0)
    chosen, reason = choose_compute_dtype(CPU)
    assert chosen == dtype
    assert re.search(words, reason)


def test_measuring_leaves_random_numbers_and_threads_as_they_were(monkeypatch) -> None:
    monkeypatch.setattr(device_module, "PROBE_SECONDS", 0.0)
    threads = torch.get_num_threads()
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    choose_compute_dtype(CPU)
    assert torch.equal(torch.rand(2), expected)
    assert torch.get_num_threads() == threads


def test_a_seed_fixes_every_source_of_random_numbers() -> None:
    drawn = []
    for _ in range(2):
        seed_everything(7)
        drawn.append((random.random(), np.random.rand(), torch.rand(1).item()))
    assert drawn[0] == drawn[1]


def test_the_machine_is_described_in_plain_values() -> None:
    description = machine()
    assert description.processor
    assert description.cores >= 1
    assert description.torch == torch.__version__
    assert set(description.to_json()) == {
        "processor", "cores", "threads", "gpus", "torch", "python", "system"
    }  # fmt: skip


@pytest.mark.parametrize(("speedup", "dtype"), [(1.0, torch.float32), (1.3, torch.bfloat16)])
def test_a_busy_machine_chooses_the_same_type(
    monkeypatch: pytest.MonkeyPatch, speedup: float, dtype: torch.dtype
) -> None:
    """One lucky timing, and hiccups in a third of the others."""
    calls = iter(range(1_000_000))

    def seconds(device: torch.device, dtype: torch.dtype, *shape: int) -> float:
        number, honest = next(calls), 1.0 if dtype == torch.float32 else 1.0 / speedup
        return honest * (0.1 if number in (7, 8) else 9.0 if number % 6 in (0, 3) else 1.0)

    monkeypatch.setattr(device_module, "_mlp_seconds", seconds)
    monkeypatch.setattr(device_module, "PROBE_SECONDS", 0.01)
    assert choose_compute_dtype(CPU)[0] == dtype


@pytest.mark.gpu
def test_a_gpu_is_measured_too() -> None:
    chosen, _ = choose_compute_dtype(choose_device("cuda"))
    assert chosen in (torch.bfloat16, torch.float32)
