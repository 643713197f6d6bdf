"""A run of a miniature recipe as a process of its own, which a test kills: DATA OUT RESUME."""

import sys
from pathlib import Path

from fairway.pipeline.story import RunOptions, run
from fairway.recipes.registry import recipe, smoke

DATA, OUT, RESUME = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
TINY = smoke(recipe("pr414"), steps=30)
OPTIONS = RunOptions(
    proof_tokens=20,
    audit_seconds=1.0,
    compute_dtype="float32",
    threads=1,
    checkpoint_seconds=0.05,
    resume=RESUME,  # type: ignore[arg-type]
)

if __name__ == "__main__":
    run(TINY, DATA, OUT, OPTIONS)
