"""The Triton kernels: equal to their twins when interpreted, and good machine code for each GPU."""

import os
import re
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from fairway.runtime.kernels_gpu import LONGEST_BLOCK, ROWS, block, warps

pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")

AT_WORK = Path(__file__).with_name("triton_at_work.py")
ARCHITECTURES = (80, 90, 100)  # A100, H100 and H200, B200
WIDTH, VOCAB, HEAD = 512, 8192, 64  # of the records
MIX, OUT = {"MIXES": True, "BLOCK": WIDTH}, {"width": "i32", "scale": "fp32"}
# name -> (types of arguments, constants, warps)
PROGRAMS = {
    "cross_entropy_forward": (
        {"logits": "*bf16", "targets": "*i64", "nats": "*fp32", "lse": "*fp32"}
        | {"vocab": "i32", "cap": "fp32"},
        {"CAPPED": True, "BLOCK": LONGEST_BLOCK},
        warps(LONGEST_BLOCK),
    ),
    "cross_entropy_backward": (
        {"logits": "*bf16", "targets": "*i64", "lse": "*fp32", "grad": "*fp32"}
        | {"d_logits": "*bf16", "vocab": "i32", "cap": "fp32"},
        {"CAPPED": True, "BLOCK": LONGEST_BLOCK},
        warps(LONGEST_BLOCK),
    ),
    "leaky_relu_squared_forward": (
        {"x": "*bf16", "y": "*bf16", "size": "i32", "slope": "fp32"},
        {"BLOCK": 1024},
        4,
    ),
    "leaky_relu_squared_backward": (
        {"grad": "*bf16", "x": "*bf16", "d_x": "*bf16", "size": "i32", "slope": "fp32"},
        {"BLOCK": 1024},
        4,
    ),
    "mix_norm_forward": (
        {"x": "*bf16", "other": "*bf16", "mix": "*fp32", "mixed": "*bf16", "y": "*bf16"}
        | {"inverse": "*fp32"}
        | OUT,
        MIX,
        warps(WIDTH),
    ),
    "mix_norm_backward": (
        {"d_mixed": "*bf16", "d_y": "*bf16", "x": "*bf16", "other": "*bf16", "mixed": "*bf16"}
        | {"inverse": "*fp32", "mix": "*fp32", "d_x": "*bf16", "d_other": "*bf16"}
        | {"d_mix": "*fp32", "rows": "i32"}
        | OUT,
        MIX | {"ROWS": ROWS},
        warps(WIDTH),
    ),
    "exclude_self_forward": (
        {"y": "*bf16", "values": "*bf16", "out": "*bf16"}
        | {"heads": "i32", "kv_heads": "i32", "width": "i32"},
        {"BLOCK": HEAD},
        1,
    ),
    "exclude_self_backward": (
        {"grad": "*bf16", "y": "*bf16", "values": "*bf16", "d_y": "*bf16", "d_values": "*bf16"}
        | {"heads": "i32", "kv_heads": "i32", "width": "i32"},
        {"BLOCK": HEAD},
        1,
    ),
    "smear_forward": (
        {"x": "*bf16", "gate": "*fp32", "strength": "*fp32", "same": "*i1", "y": "*bf16"}
        | {"length": "i32", "width": "i32", "window": "i32"},
        {"BLOCK": WIDTH},
        warps(WIDTH),
    ),
    "smear_backward": (
        {"grad": "*bf16", "x": "*bf16", "gate": "*fp32", "strength": "*fp32", "same": "*i1"}
        | {"d_x": "*bf16", "d_gate": "*fp32", "d_strength": "*fp32", "rows": "i32"}
        | {"length": "i32", "width": "i32", "window": "i32"},
        {"BLOCK": WIDTH},
        warps(WIDTH),
    ),
}


def at_work(device: str, **environment: str) -> None:
    done = subprocess.run(
        [sys.executable, str(AT_WORK), device],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(": equal") == 11


def test_every_kernel_is_its_twin_when_interpreted() -> None:
    at_work("cpu", TRITON_INTERPRET="1")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_every_kernel_is_its_twin_on_a_gpu() -> None:
    at_work("cuda")


def test_every_program_is_compiled_ahead_of_time() -> None:
    from fairway.runtime import kernels_triton

    programs = {n for n, f in vars(kernels_triton).items() if hasattr(f, "arg_names")}
    assert programs - {"_bend"} == set(PROGRAMS)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("name", list(PROGRAMS))
def test_machine_code_needs_few_registers_and_spills_none(name: str, architecture: int) -> None:
    """Ahead of time, by the assembler that Triton brings: no GPU takes part."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from fairway.runtime import kernels_triton

    types, constants, num_warps = PROGRAMS[name]
    program = getattr(kernels_triton, name)
    source = ASTSource(
        fn=program, signature=types | dict.fromkeys(constants, "constexpr"), constexprs=constants
    )
    target = GPUTarget("cuda", architecture, 32)
    found = triton.compile(source, target=target, options={"num_warps": num_warps})
    assert found.asm["cubin"]
    assert found.metadata.shared <= 48 * 1024
    registers, spilled = assembled(found.asm["cubin"])
    assert spilled == 0
    # So many that at least two programs fit onto a processor, whatever else limits them.
    assert registers * 32 * num_warps * 2 <= 65_536


def assembled(machine_code: bytes) -> tuple[int, int]:
    """Registers of a thread, and bytes of memory that it spills to, as Triton's own tool reads."""
    import triton.backends.nvidia as nvidia

    tool = Path(next(iter(nvidia.__path__))) / "bin" / "cuobjdump"
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "program.cubin"
        file.write_bytes(machine_code)
        said = subprocess.run(
            [str(tool), "-res-usage", str(file)], capture_output=True, text=True, check=True
        ).stdout
    registers, stack, local = (
        max(map(int, re.findall(rf"{name}:(\d+)", said))) for name in ("REG", "STACK", "LOCAL")
    )
    return registers, stack + local


def test_blocks_hold_their_row() -> None:
    for size in (1, 16, 17, 512, 513):
        assert block(size) >= size
        assert block(size) < 2 * max(size, 16)
        assert 1 <= warps(size) <= 16
