"""Windows that are computed together: one forward pass over several of equal history."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fairway.evaluate.chunks import Chunk
from fairway.evaluate.windows import Window
from fairway.runtime.device import send


class WindowBatch(NamedTuple):
    """Windows that share one forward pass: their histories are equally long, and those with fewer
    targets are padded on the right, where no position before can see it."""

    members: tuple[int, ...]  # for each row the index of its window in the plan
    tokens: Tensor  # (B, T + 1)
    history: int  # tokens before the first target
    num_targets: tuple[int, ...]  # for each row how many are its own

    @property
    def inputs(self) -> Tensor:
        return self.tokens[:, :-1]

    @property
    def start(self) -> int:
        """The first position whose output counts."""
        return self.history - 1

    @property
    def targets(self) -> Tensor:
        return self.tokens[:, self.history :]


def group_windows(
    windows: Sequence[Window], members: Iterable[int], rows: int, pad_to: int
) -> list[tuple[int, ...]]:
    """Which of the windows share a forward pass, at most `rows` in each.

    pad_to  longest window that may be padded: beyond the training context a window's length
            decides its rotary angles, so only windows of one length go together
    """
    groups: dict[tuple[int, int], list[int]] = {}
    for i in members:
        window = windows[i]
        exact = 0 if window.num_inputs <= pad_to else window.num_inputs
        groups.setdefault((window.score_from - window.start, exact), []).append(i)
    batches = []
    for group in groups.values():
        group.sort(key=lambda i: windows[i].num_inputs)  # so that little is padded
        batches += [tuple(group[begin : begin + rows]) for begin in range(0, len(group), rows)]
    return batches


def make_window_batch(chunk: Chunk, members: tuple[int, ...], device: torch.device) -> WindowBatch:
    windows = [chunk.plan.windows[i] for i in members]
    texts = [chunk.texts[i] for i in members]
    return WindowBatch(
        members,
        send(torch.nn.utils.rnn.pad_sequence(texts, batch_first=True), device),
        windows[0].score_from - windows[0].start,
        tuple(window.num_targets for window in windows),
    )
