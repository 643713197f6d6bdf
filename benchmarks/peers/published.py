"""The published scripts' way to score and to learn: the yardstick of `benchmarks/evaluate.py`.

The same model, composed of PyTorch's own operations as #1413 composes them; every position of every
window through every layer and the head, nats from full float logits; learning with autograd's
derivatives, clip 1, SGD with momentum.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fairway.evaluate.chunks import Chunk, ChunkPlan
from fairway.model.gpt import GPT


def _scaled_rms_norm(x: Tensor, scale: float = 1.0) -> Tensor:
    y = F.rms_norm(x, (x.size(-1),))
    return y if scale == 1.0 else y * scale


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    grouped = q.size(1) != k.size(1)
    return F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, is_causal=mask is None, enable_gqa=grouped
    )


def _leaky_relu_squared(x: Tensor, slope: float) -> Tensor:
    return F.leaky_relu(x, slope).square()


@contextmanager
def composed() -> Iterator[None]:
    """The model's operations as PyTorch has them, without kernels of this project."""
    with ExitStack() as stack:
        for name, operation in {
            "model.gpt.rms_norm": _scaled_rms_norm,
            "runtime.kernels.rms_norm": _scaled_rms_norm,
            "model.attention.attend": _attend,
            "model.mlp.leaky_relu_squared": _leaky_relu_squared,
        }.items():
            stack.enter_context(patch(f"fairway.{name}", operation))
        yield


@torch.inference_mode()
def score(model: GPT, tokens: Tensor, plans: Sequence[ChunkPlan], rows: int = 32) -> Tensor:
    """Nats (n - 1,) float64 of tokens[1:]: whole windows, whole logits, the last ones kept."""
    nats = torch.full((len(tokens) - 1,), torch.nan, dtype=torch.float64)
    windows = [window for plan in plans for window in plan.windows]
    with composed():
        for begin in range(0, len(windows), rows):
            group = windows[begin : begin + rows]
            texts = [tokens[window.start : window.stop] for window in group]
            padded = nn.utils.rnn.pad_sequence(texts, batch_first=True)
            logits = model(padded[:, :-1])
            losses = F.cross_entropy(
                logits.flatten(0, 1).float(), padded[:, 1:].flatten(), reduction="none"
            ).view(len(group), -1)
            for window, row in zip(group, losses, strict=True):
                first = window.score_from - window.start - 1
                last = window.stop - window.start - 1
                nats[window.score_from - 1 : window.stop - 1] = row[first:last].double()
    return nats


def learn(
    model: GPT,
    optimizer: torch.optim.Optimizer,
    chunk: Chunk,
    *,
    context: int,
    epochs: int,
    batch_sequences: int,
    precision: str | None = "float32",
) -> int:
    """All epochs over a chunk; returns how many tokens went into the model.

    precision  bfloat16 is autocast, as in #1413
    """
    half = precision == "bfloat16"
    (text,) = chunk.span_texts
    num_sequences = (len(text) - 1) // context
    model.train()
    seen = 0
    with composed():
        for _ in range(epochs):
            for begin in range(0, num_sequences, batch_sequences):
                end = min(begin + batch_sequences, num_sequences)
                part = text[begin * context : end * context + 1]
                inputs, targets = part[:-1].view(-1, context), part[1:].view(-1, context)
                optimizer.zero_grad(set_to_none=True)
                with torch.autocast("cpu", torch.bfloat16, enabled=half):
                    logits = model(inputs)
                loss = F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())
                loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                seen += inputs.numel()
    model.eval()
    return seen
