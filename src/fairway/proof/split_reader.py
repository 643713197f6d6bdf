"""Rows that stand in step in a stream, computed a few at a time."""

from collections.abc import Sequence

import torch
from torch import Tensor

from fairway.evaluate.chunks import ChunkPlan
from fairway.evaluate.predictor import Predictor, Reader


def distribution(reader: Reader) -> Tensor:
    """What a coder takes: where slices end, (rows, V) int64, or log-probabilities in float64."""
    ends = getattr(reader, "ends", None)
    return reader.log_probs() if ends is None else ends()


class SplitReader:
    """A reader of a plan that computes at most `most` of its rows together."""

    def __init__(self, predictor: Predictor, plan: ChunkPlan, most: int) -> None:
        self.predictor, self.plan, self.most = predictor, plan, most
        self.readers: list[Reader] = []
        self.group_of: dict[int, int] = {}  # by row; rows outlive the windows opened in them
        self.open: list[tuple[Reader, list[int]]] = []  # which of the rows in step each one reads

    def start(self, windows: Sequence[int], histories: Tensor) -> None:
        members: dict[int, list[int]] = {}
        for place, i in enumerate(windows):
            row = self.plan.rows[i]
            group = self.group_of.setdefault(row, len(self.group_of) // self.most)
            members.setdefault(group, []).append(place)
        self.open = []
        for group, places in members.items():
            while len(self.readers) <= group:
                self.readers.append(self.predictor.reader(self.plan))
            self.readers[group].start([windows[place] for place in places], histories[places])
            self.open.append((self.readers[group], places))

    def log_probs(self) -> Tensor:
        return self._joined([reader.log_probs() for reader, _ in self.open])

    def ends(self) -> Tensor:
        return self._joined([distribution(reader) for reader, _ in self.open])

    def push(self, tokens: Tensor) -> None:
        for reader, places in self.open:
            reader.push(tokens[places])

    def _joined(self, parts: list[Tensor]) -> Tensor:
        places = [place for _, group in self.open for place in group]
        return torch.cat(parts)[torch.tensor(places).argsort()]
