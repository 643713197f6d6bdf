import pytest
import torch
import torch.nn.functional as F

from fairway.runtime import attention_backend
from fairway.runtime.attention_backend import (
    BACKENDS,
    AttentionBackend,
    choose_attention_backend,
)

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


def queries(heads: int = 4, kv_heads: int = 2, device: torch.device = CPU, dtype=torch.float32):
    source = torch.Generator().manual_seed(0)
    shapes = [(2, heads, 128, 64), (2, kv_heads, 128, 64), (2, kv_heads, 128, 64)]
    return [torch.randn(s, generator=source).to(device, dtype) for s in shapes]


def pretend(monkeypatch: pytest.MonkeyPatch, *runnable: str) -> None:
    """Every backend but these has something in its way."""
    obstacles = {
        name: (lambda d, t, n=name: None if n in (*runnable, "plain") else f"{n} is broken")
        for name in BACKENDS
    }
    monkeypatch.setattr(attention_backend, "BACKENDS", obstacles)


def test_a_processor_takes_the_plain_backend_and_says_why() -> None:
    backend = choose_attention_backend(CPU, torch.bfloat16)
    assert backend == AttentionBackend("plain", "the device is cpu")


@pytest.mark.parametrize("name", ["flash3", "flash", "cudnn", "flex"])
def test_a_requested_backend_that_is_missing_is_an_error(name: str) -> None:
    with pytest.raises(ValueError, match=rf"'{name}' cannot run: it needs a GPU.*Mend that, or"):
        choose_attention_backend(CPU, torch.bfloat16, name)
    with pytest.raises(ValueError, match=r"unknown .* 'flash9'; choose one of flash3, flash"):
        choose_attention_backend(CPU, torch.bfloat16, "flash9")


def test_the_fastest_that_can_run_is_chosen_and_what_was_passed_over_is_told(monkeypatch) -> None:
    pretend(monkeypatch, "flash3", "flash", "flex")
    assert choose_attention_backend(GPU, torch.bfloat16).name == "flash3"
    pretend(monkeypatch, "flash", "cudnn", "flex")
    backend = choose_attention_backend(GPU, torch.bfloat16)
    assert backend == AttentionBackend("flash", "no flash3: flash3 is broken")
    pretend(monkeypatch, "flex")
    backend = choose_attention_backend(GPU, torch.bfloat16)
    assert backend.name == "plain"
    assert "no flash3: flash3 is broken; no flash: flash is broken; no cudnn" in backend.reason
    assert choose_attention_backend(GPU, torch.bfloat16, "flex").name == "flex"


def test_the_plain_backend_is_causal_attention() -> None:
    q, k, v = queries()
    y = AttentionBackend("plain", "").attend(q, k, v)
    k, v = (t.repeat_interleave(2, dim=1) for t in (k, v))
    scores = q @ k.mT / 8.0
    scores = scores.masked_fill(torch.ones(128, 128, dtype=torch.bool).triu(1), float("-inf"))
    torch.testing.assert_close(y, scores.softmax(-1) @ v)


def test_an_active_backend_is_the_only_one_allowed(monkeypatch) -> None:
    """On a CPU the cuDNN kernel cannot run, so PyTorch must refuse rather than take another."""
    flags = torch.backends.cuda
    with AttentionBackend("cudnn", "").active():
        assert (flags.cudnn_sdp_enabled(), flags.flash_sdp_enabled()) == (True, False)
        assert not flags.math_sdp_enabled()
    assert flags.flash_sdp_enabled()
    assert flags.math_sdp_enabled()


def test_flash_attention_3_is_taken_in_while_active_and_let_go_after(monkeypatch) -> None:
    calls: list[str] = []
    library = attention_backend.attention
    monkeypatch.setattr(library, "activate_flash_attention_impl", calls.append, raising=False)
    monkeypatch.setattr(
        library, "restore_flash_attention_impl", lambda: calls.append("restored"), raising=False
    )
    with AttentionBackend("flash3", "").active():
        assert calls == ["FA3"]
    assert calls == ["FA3", "restored"]


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["flash3", "flash", "cudnn", "flex"])
def test_every_backend_computes_what_the_plain_one_does(name: str) -> None:
    obstacle = BACKENDS[name](GPU, torch.bfloat16)
    if obstacle is not None:
        pytest.skip(f"{name}: {obstacle}")
    q, k, v = (t.requires_grad_() for t in queries(device=GPU, dtype=torch.bfloat16))
    y = choose_attention_backend(GPU, torch.bfloat16, name).attend(q, k, v)
    expected = F.scaled_dot_product_attention(
        q.float(), k.float(), v.float(), is_causal=True, enable_gqa=True
    )
    torch.testing.assert_close(y.float(), expected, atol=2e-2, rtol=2e-2)
    y.float().square().mean().backward()
    assert q.grad is not None
    assert q.grad.isfinite().all()
