"""What n-gram experts say about a chunk's targets, each before the target is read."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from torch import Tensor

from fairway.evaluate.chunks import Chunk, ChunkPlan
from fairway.evaluate.learners.ngram import Memory


class Evidence(NamedTuple):
    """The experts' say about the targets of a chunk in the order of the plan, laid end to end.

    ends     (num_targets,) where each target's experts end
    kinds    (n,) of each expert
    ahead    (n,) the probability each gives the token that came
    pointed  (n,) the only token it points at; -1 where it is spread over several
    """

    ends: np.ndarray
    kinds: np.ndarray
    ahead: list[float]
    pointed: np.ndarray


def rows_of(plan: ChunkPlan) -> dict[int, list[int]]:
    """The windows of each row, in order."""
    rows: dict[int, list[int]] = {}
    for i, row in enumerate(plan.rows):
        rows.setdefault(row, []).append(i)
    return rows


def follow(memory: Memory, text: Sequence[int], num_targets: int) -> Iterator[tuple[int, int]]:
    """(place, token) of the targets of a window, `memory` standing before each of them.

    Contexts are those of the window's own text: it may be all that a reader of it has seen.
    """
    first = len(text) - num_targets
    memory.stand_after(text[:first])
    for place in range(num_targets):
        yield place, text[first + place]


def read_window(memory: Memory, text: Tensor, num_targets: int) -> None:
    """Push the targets of a window."""
    for _, token in follow(memory, text.tolist(), num_targets):
        memory.push(token)


def gather_evidence(chunk: Chunk, memory_of: Callable[[int], Memory]) -> Evidence:
    """What n-grams say about every target of a chunk.

    memory_of  for a row, a memory to read on with
    """
    plan, offsets = chunk.plan, chunk.plan.offsets
    found: list[tuple[list[int], list[float], list[int]]] = [([], [], [])] * plan.num_targets
    for row, members in rows_of(plan).items():
        memory = memory_of(row)
        for i in members:
            targets = plan.windows[i].num_targets
            for place, token in follow(memory, chunk.texts[i].tolist(), targets):
                experts = memory.experts()
                found[offsets[i] + place] = (
                    [expert.kind for expert in experts],
                    [expert.probability(token) for expert in experts],
                    [expert.pointed for expert in experts],
                )
                memory.push(token)
    kinds, ahead, pointed = ([x for one in found for x in one[part]] for part in range(3))
    ends = np.cumsum([len(one[0]) for one in found], dtype=int)
    return Evidence(ends, np.array(kinds, int), ahead, np.array(pointed, int))
