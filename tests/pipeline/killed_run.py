"""A run of a miniature recipe as a process of its own, which a test kills: DATA OUT RESUME."""

import sys
from dataclasses import replace
from pathlib import Path

from fairway.pipeline.story import RunOptions, run
from fairway.recipes.registry import recipe, smoke

TINY = smoke(recipe("pr414"), steps=30)
OPTIONS = RunOptions(
    proof_tokens=20,
    audit_seconds=1.0,
    compute_dtype="float32",
    threads=1,
    checkpoint_seconds=0.05,
)

if __name__ == "__main__":
    data, out, resume = sys.argv[1:]
    run(TINY, Path(data), Path(out), replace(OPTIONS, resume=resume))
