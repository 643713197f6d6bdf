"""Sliding windows that keep the keys and values of the window before: approximate, and fast.

An exact window computes its whole context anew. Here a run of `length` consecutive windows shares
one cache: the first is computed exactly, each further one drops the oldest keys, turns those that
stay back to the positions they have now, and computes only what is new. The keys that stay had more
text before them than the window holds, so nats differ a little from exact ones. They are still
those of a causal, normalized distribution, and `CachedReader` reads the very same ones.

Runs are counted within a chunk and do not depend on how many windows are computed together.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from fairway.evaluate.chunks import Chunk, ChunkPlan
from fairway.evaluate.window_batch import WindowBatch, group_windows, make_window_batch
from fairway.evaluate.windows import Window
from fairway.model.cache import Cache
from fairway.model.decode_step import next_logits, window_logits
from fairway.model.gpt import GPT


def cached_runs(plan: ChunkPlan, length: int) -> list[tuple[int, ...]]:
    """The windows of a plan in runs of at most `length`, in order.

    A run goes on from one window to the next where the next reads the same row, as much history and
    as many targets, and begins where the targets of the one before do.
    """
    runs: list[tuple[int, ...]] = []
    for i, window in enumerate(plan.windows):
        before = runs[-1] if runs else ()
        if before and len(before) < length and _goes_on(plan, before[-1], i, window):
            runs[-1] = (*before, i)
        else:
            runs.append((i,))
    return runs


def _goes_on(plan: ChunkPlan, last: int, i: int, window: Window) -> bool:
    previous = plan.windows[last]
    return (
        plan.rows[last] == plan.rows[i]
        and previous.num_targets == window.num_targets
        and window.start == previous.start + window.num_targets
        and window.score_from == previous.stop
    )


def cached_batches(
    model: GPT, chunk: Chunk, runs: Sequence[tuple[int, ...]], rows: int
) -> Iterator[tuple[WindowBatch, Tensor]]:
    """Each step of the runs with its logits (B, targets, V) float32; up to `rows` runs in step."""
    windows, device = chunk.plan.windows, model.embed.weight.device
    train_context = model.config.train_context
    by_first: dict[int, tuple[int, ...]] = {run[0]: run for run in runs}
    for group in group_windows(windows, by_first, rows, train_context):
        # Side by side only runs of one shape and length; others lose nothing by going alone.
        alike: dict[tuple[int, int], list[tuple[int, ...]]] = {}
        for first in group:
            run, inputs = by_first[first], windows[first].num_inputs
            shape = (len(run), inputs if len(run) > 1 else 0)
            alike.setdefault(shape, []).append(run)
        for together in alike.values():
            yield from _in_step(model, chunk, together, device)


def _in_step(
    model: GPT, chunk: Chunk, runs: Sequence[tuple[int, ...]], device: torch.device
) -> Iterator[tuple[WindowBatch, Tensor]]:
    opening = make_window_batch(chunk, tuple(run[0] for run in runs), device)
    if len(runs[0]) == 1:
        yield opening, window_logits(model, opening.inputs, start=opening.start)
        return
    cache = model.new_cache(len(runs), chunk.plan.windows[runs[0][0]].num_inputs)
    yield opening, window_logits(model, opening.inputs, start=opening.start, cache=cache)
    for step in range(1, len(runs[0])):
        members = tuple(run[step] for run in runs)
        history, new = opening.history, opening.num_targets[0]
        whole = torch.stack([chunk.texts[i] for i in members]).to(device)
        one = WindowBatch(members, whole[:, history - 1 :], 1, opening.num_targets)
        drop_oldest(model, cache, new)
        yield one, window_logits(model, one.inputs, cache=cache)


def drop_oldest(model: GPT, cache: Cache, count: int) -> None:
    """Forget the first `count` positions; those that stay move to the front, keys turned back."""
    left = cache.length - count
    cos, sin = model.rope(cache.context, cache.keys)
    kept = cache.keys[..., count : cache.length, :].clone()
    half = cos.size(-1)
    first, second = kept[..., :half], kept[..., half : 2 * half]
    # A key at position p was rotated by p; its place is p - count from now on.
    turned = first * cos[count] - second * sin[count], second * cos[count] + first * sin[count]
    cache.keys[..., :left, :] = torch.cat((*turned, kept[..., 2 * half :]), dim=-1)
    cache.values[..., :left, :] = cache.values[..., count : cache.length, :].clone()
    cache.tokens[:, :left] = cache.tokens[:, count : cache.length].clone()
    cache.length = left


class CachedReader:
    """Reads token by token what `cached_batches` scores.

    Windows come in the plan's order; those of several rows run in step if their runs do.
    """

    def __init__(self, model: GPT, plan: ChunkPlan, length: int) -> None:
        self.model, self.plan = model, plan
        self.opens = {run[0] for run in cached_runs(plan, length)}
        self.caches: dict[int, Cache] = {}  # by row, from one window to the next
        self.open: list[int] = []
        self.logits: Tensor | None = None

    @torch.inference_mode()
    def start(self, windows: Sequence[int], histories: Tensor) -> None:
        self.open = [self.plan.rows[i] for i in windows]
        logits = []
        for i, history in zip(windows, histories, strict=True):
            window, row = self.plan.windows[i], self.plan.rows[i]
            if i in self.opens:
                self.caches[row] = self.model.new_cache(1, window.num_inputs)
                logits.append(self._advance(row, history[None]))
            else:
                drop_oldest(self.model, self.caches[row], window.num_targets)
                logits.append(self._advance(row, history[None, -1:]))
        self.logits = torch.cat(logits)

    @torch.inference_mode()
    def log_probs(self) -> Tensor:
        if self.logits is None:
            raise ValueError("nothing was read yet: call start() with a window's history first")
        return torch.log_softmax(self.logits.double(), dim=-1)

    @torch.inference_mode()
    def push(self, tokens: Tensor) -> None:
        assert self.logits is not None
        logits = []
        for row, token, before in zip(self.open, tokens, self.logits, strict=True):
            full = self.caches[row].length >= self.caches[row].context
            logits.append(before[None] if full else self._advance(row, token[None, None]))
        self.logits = torch.cat(logits)

    def _advance(self, row: int, tokens: Tensor) -> Tensor:
        device = self.model.embed.weight.device
        return next_logits(self.model, tokens.to(device), self.caches[row]).cpu()
