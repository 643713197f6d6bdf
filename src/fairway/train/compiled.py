"""The loss through `torch.compile`, ready before any clock starts."""

from collections.abc import Callable, Collection
from itertools import product

import torch
from torch import Tensor

from fairway.model.gpt import GPT
from fairway.model.segments import Parts

Loss = Callable[[Tensor, Tensor], Tensor]


def compile_loss(
    model: GPT,
    rows: int,
    context: int,
    dtype: torch.dtype,
    loops: Collection[bool],
    parts: Collection[Parts | None] = (None,),
) -> Loss:
    """`model.loss` compiled, in the mode `model` is in, for contiguous (rows, context) tokens.

    dtype  of the activations
    loops  whether depth recurrence is on: every value that it will have
    parts  how a long row is attended to, likewise

    The tokens are random. No gradient is left behind. Raises ValueError where the compiler of
    `torch.compile` is missing or fails.
    """
    from torch._dynamo.exc import BackendCompilerFailed  # takes a second to import

    loss = torch.compile(model.loss, dynamic=False)
    device, vocab_size = model.embed.weight.device, model.config.vocab_size
    generator = torch.Generator().manual_seed(0)  # the run's own numbers stay as they are
    tokens = torch.randint(vocab_size, (rows, context), generator=generator).to(device)
    before = model.loops_active, model.compute_dtype, model.parts
    model.compute_dtype = dtype
    # Tables that appear while compiling would be a reason to compile again.
    blocks = {context if part is None else part.block for part in parts}
    for block in blocks:
        model.rope(block, torch.empty(0, dtype=dtype, device=device))
    try:
        for active, part in product(loops, parts):
            model.loops_active, model.parts = active, part
            loss(tokens, tokens.clone()).backward()
    except BackendCompilerFailed as error:
        raise ValueError(
            f"torch.compile failed ({error.inner_exception}); it needs a C++ compiler on a CPU and "
            f"Triton on a GPU. Install what is missing, or do without: --compiled False for "
            f"training, ttt.compiled=false for learning at test time"
        ) from error
    finally:
        model.loops_active, model.compute_dtype, model.parts = before
        model.zero_grad(set_to_none=True)
    return loss
