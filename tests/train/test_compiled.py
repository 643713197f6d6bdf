"""Mostly with the eager backend, which traces like any other and needs no C++ compiler."""

import re
from functools import partial
from pathlib import Path

import pytest
import torch
from torch._dynamo.utils import counters
from torch._inductor.exc import CppCompileError

from fairway.model.attention import AttentionConfig
from fairway.model.depth import Loop
from fairway.model.gpt import GPT
from fairway.model.model_config import ModelConfig
from fairway.runtime.compiler_cache import VARIABLE
from fairway.train.compiled import CannotCompile, compile_loss, mend

ROWS, CONTEXT = 2, 8


def looped() -> GPT:
    torch.manual_seed(0)
    return GPT(
        ModelConfig(
            vocab_size=32,
            model_dim=16,
            num_layers=3,
            attention=AttentionConfig(num_heads=2, num_kv_heads=1),
            train_context=CONTEXT,
            loop=Loop(first=1, last=1),
        )
    )


@pytest.fixture
def traced_only(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.compiler.reset()
    counters.clear()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))


def graphs() -> int:
    return counters["stats"]["unique_graphs"]


def test_all_is_compiled_beforehand_and_nothing_else_changes(traced_only: None) -> None:
    model = looped()
    numbers = torch.get_rng_state()
    loss = compile_loss(model, ROWS, CONTEXT, torch.float32, {False, True})
    ready = graphs()
    assert ready >= 2
    assert torch.equal(numbers, torch.get_rng_state())
    assert all(parameter.grad is None for parameter in model.parameters())
    tokens, targets = torch.randint(32, (2, ROWS, CONTEXT)).unbind()
    for model.loops_active in (False, True):
        # The compiler sees the plain forms, which round in another order.
        assert torch.allclose(loss(tokens, targets), model.loss(tokens, targets), atol=2e-6)
    assert graphs() == ready


def test_the_next_model_of_a_kind_costs_nothing(traced_only: None) -> None:
    """An evaluation makes several: to plan, to score, to prove."""
    compile_loss(looped(), ROWS, CONTEXT, torch.float32, {True})
    ready = graphs()
    compile_loss(looped(), ROWS, CONTEXT, torch.float32, {True})
    assert graphs() == ready


def test_what_cannot_be_compiled_says_how_to_do_without(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_compiler(graph: object, inputs: object) -> None:
        raise RuntimeError("no C++ compiler here")

    torch.compiler.reset()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=no_compiler))
    model = looped()
    with pytest.raises(ValueError, match=r"C\+\+ compiler here.*--no-compiled"):
        compile_loss(model, ROWS, CONTEXT, torch.bfloat16, {True})
    assert model.compute_dtype == torch.float32


def test_the_mend_is_that_of_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    cpu = torch.device("cpu")
    assert f"rm -r {tmp_path}" in mend(cpu)
    (tmp_path / "file").touch()
    monkeypatch.setenv(VARIABLE, str(tmp_path / "file"))
    assert re.search(f"{tmp_path}/file cannot be written to .*{VARIABLE}", mend(cpu))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "no C++ compiler: install one of" in mend(cpu)


def test_of_all_that_a_compiler_prints_its_first_error_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def failing(graph: object, inputs: object) -> None:
        raise CppCompileError(["g++", *["-D"] * 200], "In file included\nx.cpp:3: error: no room\n")

    torch.compiler.reset()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=failing))
    with pytest.raises(CannotCompile, match=r"\(CppCompileError: x.cpp:3: error: no room\)\. If"):
        compile_loss(looped(), ROWS, CONTEXT, torch.float32, {True})


@pytest.mark.slow
def test_compiled_for_real_it_is_the_same_loss() -> None:
    model = looped()
    loss = compile_loss(model, ROWS, CONTEXT, torch.float32, {model.loops_active})
    tokens, targets = torch.randint(32, (2, ROWS, CONTEXT)).unbind()
    torch.testing.assert_close(loss(tokens, targets), model.loss(tokens, targets))
