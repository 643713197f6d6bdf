"""A decoder works under the encoder's circumstances, or learns at once that it cannot."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fairway.evaluate.config import EvaluateConfig
from fairway.evaluate.learners.sgd import Sgd
from fairway.model.decode_step import describe_step
from fairway.proof.compress import CompressConfig, code, decompress
from fairway.proof.reproducible import (
    Checkpoints,
    NotReproducible,
    circumstances,
    differences,
    reproducible,
)
from fairway.runtime.native import library, switched_off

from .conftest import loaded, tiny_model

steps = st.lists(st.lists(st.integers(0, 9000), min_size=1, max_size=5), max_size=30)


def run(groups: list[list[int]], every: int, expected=None) -> tuple[int, ...]:
    checkpoints = Checkpoints(every, expected)
    for group in groups:
        checkpoints.add(torch.tensor(group))
    return checkpoints.finish()


@given(steps, st.integers(1, 20))
def test_the_same_tokens_pass(groups: list[list[int]], every: int) -> None:
    noted = run(groups, every)
    assert run(groups, every, noted) == noted


@given(steps.filter(bool), st.integers(1, 20), st.data())
def test_any_other_token_is_caught(groups: list[list[int]], every: int, data) -> None:
    noted = run(groups, every)
    group = data.draw(st.integers(0, len(groups) - 1))
    place = data.draw(st.integers(0, len(groups[group]) - 1))
    changed = [list(g) for g in groups]
    changed[group][place] += 1
    with pytest.raises(NotReproducible, match="other probabilities"):
        run(changed, every, noted)


@given(steps.filter(bool), st.integers(1, 20))
def test_tokens_too_few_or_too_many_are_caught(groups: list[list[int]], every: int) -> None:
    noted = run(groups, every)
    for other in (groups[:-1], [*groups, [1]]):
        with pytest.raises(NotReproducible):
            run(other, every, noted)


def test_threads_and_precision_are_held_and_put_back() -> None:
    torch.set_float32_matmul_precision("medium")
    before = torch.get_num_threads()
    try:
        with reproducible(2):
            assert torch.get_num_threads() == 2
            assert torch.get_float32_matmul_precision() == "highest"
        assert torch.get_num_threads() == before
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_an_error_while_coding_puts_them_back_too() -> None:
    before = torch.get_num_threads()

    def fail() -> None:
        with reproducible(before + 1):
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
    with pytest.raises(ValueError, match="at least 1"), reproducible(0):
        pass


def test_threads_of_another_kind_of_machine_are_refused_before_they_are_started() -> None:
    before = torch.get_num_threads()
    words = r"10,000 threads .* use one with more cores"
    with pytest.raises(NotReproducible, match=words), reproducible(10_000):
        pass
    assert torch.get_num_threads() == before


COMPILED = pytest.mark.skipif(library("decode", tuned=True) is None, reason="no C++ compiler")


def test_files_older_than_the_kernels_are_read_without_them() -> None:
    model = tiny_model()
    with reproducible(1, {"torch": "2.9"}):
        assert "plain" in describe_step(model)
    with reproducible(1, {"kernels": "plain"}):
        assert "plain" in describe_step(model)
    assert "plain" not in describe_step(model)
    assert differences({"kernels": "plain"}, {"kernels": "C++ 12345678"}) == ""


@COMPILED
def test_without_a_compiler_what_was_coded_with_one_is_refused_and_the_mend_named() -> None:
    learning = Sgd(chunk_tokens=32, epochs=2, lr=0.05)
    model, text = loaded(EvaluateConfig(context=16, stride=8, ttt=learning)), b"the cat sat. " * 8
    native = CompressConfig(arithmetic="native")
    packed = code(model, text, native)
    with switched_off():
        older = code(model, text, native)
        with pytest.raises(NotReproducible, match=r"C\+\+.*install a C\+\+ compiler"):
            decompress(model, packed)
    assert decompress(model, older) == text
    assert decompress(model, packed) == text


@COMPILED
def test_settled_arithmetic_does_not_ask_what_computes_a_step() -> None:
    model = loaded(EvaluateConfig(context=16, stride=8))
    packed = code(model, b"the cat sat", CompressConfig(arithmetic="settled"))
    with switched_off():
        assert decompress(model, packed) == b"the cat sat"
    assert decompress(model, packed) == b"the cat sat"
