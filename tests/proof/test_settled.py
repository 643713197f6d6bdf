"""Coding runs under stated circumstances and leaves none of them changed."""

import pytest
import torch

from fairway.proof.settled import circumstances, differences, settled


def test_threads_and_precision_are_held_and_put_back() -> None:
    torch.set_float32_matmul_precision("medium")
    before = torch.get_num_threads()
    try:
        with settled(2):
            assert torch.get_num_threads() == 2
            assert torch.get_float32_matmul_precision() == "highest"
        assert torch.get_num_threads() == before
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_an_error_while_coding_puts_them_back_too() -> None:
    before = torch.get_num_threads()

    def fail() -> None:
        with settled(before + 1):
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert torch.get_num_threads() == before


def test_a_machine_does_not_differ_from_itself() -> None:
    here = circumstances()
    assert here["torch"] == torch.__version__
    assert differences(here, circumstances()) == ""
    assert differences(here | {"gpus": "none such"}, here).startswith("gpus none such there")


def test_no_threads_are_too_few() -> None:
    with pytest.raises(ValueError, match="at least 1"), settled(0):
        pass
