"""What a model thinks of every token of a text: window by window, each read once while it is kept.

The windows are those of the frozen score, so the bits are the same; who types at the end of a text
has only its last window read anew.
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch

from fairway.artifact.loaded_model import LoadedModel
from fairway.evaluate.windows import Window, sliding_windows

MOST_WINDOWS = 512  # kept; of a stride of 64 tokens each holds a few kilobytes
MOST_LIKELY = 5  # alternatives kept for each token


class ReadToken(NamedTuple):
    """log_prob in nats; likely are the (id, log_prob) that the model had expected most."""

    token: int
    log_prob: float
    likely: tuple[tuple[int, float], ...]


def windows_of(loaded: LoadedModel) -> tuple[int, int]:
    """Context and stride, in tokens, that the file says its model is scored with.

    Read without the config's own classes, for a learner of the user's is not needed here.
    """
    context, stride = (loaded.evaluate.get(name) for name in ("context", "stride"))
    context = context if type(context) is int and context > 0 else loaded.model.config.train_context
    return context, stride if type(stride) is int and 0 < stride <= context else context


class TextReader:
    """Reads texts in windows of `context` tokens, `stride` of them scored in each."""

    def __init__(self, loaded: LoadedModel, context: int, stride: int) -> None:
        self.model, self.context, self.stride = loaded.model, context, min(stride, context)
        self._kept: OrderedDict[tuple[int, ...], list[ReadToken]] = OrderedDict()

    def read(self, tokens: Sequence[int]) -> Iterator[list[ReadToken]]:
        """tokens[1:], window by window."""
        for window in sliding_windows(0, len(tokens), self.context, self.stride):
            key = (window.num_targets, *tokens[window.start : window.stop])
            if key not in self._kept:
                self._kept[key] = self._read(tokens, window)
                if len(self._kept) > MOST_WINDOWS:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(key)
            yield self._kept[key]

    @torch.inference_mode()
    def _read(self, tokens: Sequence[int], window: Window) -> list[ReadToken]:
        device = self.model.embed.weight.device
        inputs = torch.tensor([tokens[window.start : window.stop - 1]], device=device)
        targets = list(tokens[window.score_from : window.stop])
        start = window.num_inputs - window.num_targets
        logs = self.model(inputs, start=start)[0].double().log_softmax(-1).cpu()  # (targets, V)
        own = logs[torch.arange(len(targets)), targets].tolist()
        best = logs.topk(min(MOST_LIKELY, logs.size(1)), dim=-1)
        likely = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        return [
            ReadToken(token, log, tuple(zip(ids, values, strict=True)))
            for token, log, (ids, values) in zip(targets, own, likely, strict=True)
        ]
