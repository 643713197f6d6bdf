"""The loss through `torch.compile`, ready before any clock starts."""

import shutil
from collections.abc import Callable, Collection
from itertools import product

import torch
from torch import Tensor

from fairway.model.gpt import GPT
from fairway.model.segments import Parts
from fairway.runtime.compiler_cache import VARIABLE, cache_folder, problem
from fairway.runtime.limits import one_line
from fairway.runtime.native import COMPILERS

Loss = Callable[[Tensor, Tensor], Tensor]


class CannotCompile(ValueError):
    """Says what failed, in which folder the compiler keeps its results, and the mend."""


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

    The tokens are random. No gradient is left behind. Raises `CannotCompile` where the compiler of
    `torch.compile` is missing or fails, or its cache is broken.
    """
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
    except Exception as error:  # whatever compilers, their cache and their processes raise
        raise CannotCompile(
            f"torch.compile failed ({_words(error)}). {mend(device)}; or do without: --no-compiled "
            f"for training, --evaluate.ttt.compiled False for learning at test time"
        ) from error
    finally:
        model.loops_active, model.compute_dtype, model.parts = before
        model.zero_grad(set_to_none=True)
    return loss


def _words(error: Exception) -> str:
    """What went wrong, in one line: of all that a C++ compiler prints, its first error."""
    inner = getattr(error, "inner_exception", error)
    said = str(getattr(inner, "output", inner)).splitlines()
    found = next((line for line in said if "error" in line.lower()), " ".join(said))
    return f"{type(inner).__name__}: {one_line(found)}"


def mend(device: torch.device) -> str:
    """What is wrong with compiler or cache folder, as far as can be seen, and what helps."""
    if device.type == "cpu" and not any(map(shutil.which, COMPILERS)):
        return f"There is no C++ compiler: install one of {', '.join(COMPILERS)}"
    folder = cache_folder()
    if why := problem(folder):
        return (
            f"Its cache folder {folder} cannot be written to ({why}): make room there, or name "
            f"another folder in {VARIABLE}"
        )
    needs = "the C++ compiler" if device.type == "cpu" else "Triton"
    return f"If its cache was damaged, remove it: rm -r {folder}; else see whether {needs} works"
