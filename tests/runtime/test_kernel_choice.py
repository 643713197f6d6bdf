"""Kernels are used where they can be had and are right; what is used is said."""

import pytest
import torch

from fairway.runtime import kernel_choice, kernels_cpu
from fairway.runtime.kernel_choice import choose_kernels, differing
from fairway.runtime.native import library, switched_off

CPU = torch.device("cpu")
needs_compiler = pytest.mark.skipif(
    library("training", tuned=True) is None, reason="no C++ compiler here"
)


@needs_compiler
def test_on_a_cpu_compiled_ones_run_and_are_their_twins() -> None:
    switch, said = choose_kernels(CPU)
    assert said == "training: compiled C++"
    x = torch.ones(1, requires_grad=True)
    assert not kernels_cpu.take(x)
    with switch():
        assert kernels_cpu.take(x)
        assert differing(CPU) == ""


@needs_compiler
def test_one_that_is_wrong_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    right = kernels_cpu.exclude_self
    monkeypatch.setattr(kernels_cpu, "exclude_self", lambda y, v: right(y, v) * 1.01)
    with kernels_cpu.in_use():
        assert differing(CPU) == "exclusive attention is not what it should be"


def test_on_a_gpu_wrong_or_failing_ones_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_choice, "find_spec", lambda name: object())
    monkeypatch.setattr(kernel_choice, "differing", lambda device: "the loss is wrong")
    assert choose_kernels(torch.device("cuda"))[1] == "PyTorch's own (the loss is wrong)"

    def fail(device: torch.device) -> str:
        raise RuntimeError("no assembler\nand more")

    monkeypatch.setattr(kernel_choice, "differing", fail)
    assert "Triton fails: RuntimeError: ['no assembler']" in choose_kernels(torch.device("cuda"))[1]
    monkeypatch.setattr(kernel_choice, "find_spec", lambda name: None)
    assert "there is no Triton" in choose_kernels(torch.device("cuda"))[1]


def test_without_a_compiler_the_plain_ones_run() -> None:
    with switched_off():
        switch, _ = choose_kernels(CPU)
    with switch():
        assert not kernels_cpu.take(torch.ones(1, requires_grad=True))
