"""What n-gram experts say about a chunk's targets, each before the target is read."""

from collections.abc import Callable

import numpy as np

from fairway.evaluate.chunks import Chunk, ChunkPlan
from fairway.evaluate.learners.ngram import NgramMemory, Says


def rows_of(plan: ChunkPlan) -> dict[int, list[int]]:
    """The windows of each row, in order."""
    rows: dict[int, list[int]] = {}
    for i, row in enumerate(plan.rows):
        rows.setdefault(row, []).append(i)
    return rows


def gather_evidence(chunk: Chunk, memory_of: Callable[[int], NgramMemory]) -> Says:
    """What n-grams say about every target of a chunk, in the order of the plan.

    memory_of  for a row, a memory to read on with
    """
    plan = chunk.plan
    found: list[Says | None] = [None] * len(plan.windows)
    for row, members in rows_of(plan).items():
        memory = memory_of(row)
        for i in members:
            found[i] = memory.gather(chunk.texts[i], plan.windows[i].num_targets)
    nothing = np.empty(0, np.int64)
    parts = [
        Says(nothing, nothing, np.empty(0, np.float64), nothing),
        *(one for one in found if one is not None),
    ]
    return Says(*(np.concatenate(part) for part in zip(*parts, strict=True)))
