"""The layout itself: imports point upstream, and the package is light until a stage is used."""

import ast
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "src" / "fairway"
STAGES = [  # each may import from itself and from those before it
    "runtime", "text", "tokens", "model", "train", "average", "quant", "coding", "artifact",
    "evaluate", "recipes", "prepare", "fetch", "generate", "proof", "audit", "interop", "result",
    "submission", "report", "tune", "pipeline", "demo", "cli", "__main__",
]  # fmt: skip


def test_imports_only_point_upstream() -> None:
    wrong = []
    for file in sorted(PACKAGE.rglob("*.py")):
        stage = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if stage == "__init__":
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("fairway."):
                needed = (node.module or "").split(".")[1]
                if STAGES.index(needed) > STAGES.index(stage):
                    wrong.append(f"{file.relative_to(PACKAGE)} reads {node.module}")
    assert not wrong


def test_help_needs_no_torch() -> None:
    """A command line that takes seconds to say what it can do is not asked twice."""
    code = "import sys, fairway, fairway.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
