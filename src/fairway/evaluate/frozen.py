"""A model as it is, over sliding windows: in batches to score, token by token to decode."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from fairway.evaluate.cached import CachedReader, cached_batches, cached_runs
from fairway.evaluate.chunks import Chunk, ChunkPlan
from fairway.evaluate.learner import EXCERPT_TOKENS, Learner, WindowConfig
from fairway.evaluate.predictor import ALONE, Reader
from fairway.evaluate.window_batch import WindowBatch, group_windows, make_window_batch
from fairway.model.adapters import Adapters
from fairway.model.cache import Cache
from fairway.model.decode_step import next_logits, window_logits
from fairway.model.gpt import GPT
from fairway.runtime.distributed import Ranks


def chunk_nats(
    plan: ChunkPlan, batches: Iterable[tuple[WindowBatch, Tensor]], ranks: Ranks = ALONE
) -> Tensor:
    """Nats (num_targets,) float64 of a chunk, from this rank's batches and their logits.

    Every rank gets all of them, and none before every rank has fixed its own.
    """
    nats = torch.zeros(plan.num_targets, dtype=torch.float64)
    offsets = plan.offsets
    for one, logits in batches:
        loss = F.cross_entropy(logits.flatten(0, 1), one.targets.flatten(), reduction="none")
        loss = loss.view(len(one.members), -1).double().cpu()
        for i, row, length in zip(one.members, loss, one.num_targets, strict=True):
            nats[offsets[i] : offsets[i] + length] = row[:length]
    return ranks.sum(nats)


class Frozen:
    """A model as it is, over sliding windows; the base of every predictor around a model.

    rows    windows per forward pass
    ranks   share the windows of each chunk
    cached  windows in a run that share keys and values, approximately (`cached.py`); None: none do
    """

    def __init__(
        self, model: GPT, rows: int = 16, ranks: Ranks = ALONE, cached: int | None = None
    ) -> None:
        self.model, self.rows, self.ranks, self.cached = model.eval(), rows, ranks, cached

    @property
    def device(self) -> torch.device:
        return self.model.embed.weight.device

    def batches(self, chunk: Chunk) -> Iterator[tuple[WindowBatch, Tensor]]:
        """This rank's share of the chunk: each batch with its logits (B, targets, V) float32."""
        windows = chunk.plan.windows
        if self.cached is not None:
            runs = cached_runs(chunk.plan, self.cached)
            mine = [runs[i] for i in self._share(len(runs))]
            yield from cached_batches(self.model, chunk, mine, self.rows)
            return
        mine = self._share(len(windows))
        for members in group_windows(windows, mine, self.rows, self.model.config.train_context):
            one = make_window_batch(chunk, members, self.device)
            yield one, window_logits(self.model, one.inputs, start=one.start)

    def _share(self, number: int) -> range:
        """Which of so many pieces of work are this rank's."""
        share = -(-number // self.ranks.world_size)
        return range(number)[self.ranks.rank * share : (self.ranks.rank + 1) * share]

    @torch.inference_mode()
    def score(self, chunk: Chunk) -> Tensor:
        return chunk_nats(chunk.plan, self.batches(chunk), self.ranks)

    def learn(self, chunk: Chunk) -> None:
        """A frozen model learns nothing."""

    def skip(self, chunk: Chunk) -> None:
        """Nor does it miss a lesson."""

    def reader(self, plan: ChunkPlan) -> Reader:
        if self.cached is not None:
            return CachedReader(self.model, plan, self.cached)
        return ModelReader(self.model, plan)

    def state_dict(self) -> dict[str, Tensor]:
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """A frozen model has nothing to restore."""


class NoLearning(Learner):
    """A model that stays as it is: what `ttt=None` stands for."""

    def predictor(self, model: GPT, windows: WindowConfig, *, seed: int, ranks: Ranks) -> Frozen:
        return Frozen(model, windows.rows, ranks, windows.cached)

    def lesson_tokens(self, plan: ChunkPlan) -> int:
        return plan.lasting_inputs  # n-grams beside it may learn

    def excerpt_tokens(self) -> int:
        return EXCERPT_TOKENS


class ModelReader:
    """Reads one token at a time with cached keys and values, exactly as a window sees them.

    adapters  the low-rank additions for the rows of the windows named, or None for none
    """

    def __init__(
        self,
        model: GPT,
        plan: ChunkPlan,
        adapters: Callable[[Sequence[int]], Adapters | None] = lambda windows: None,
    ) -> None:
        self.model, self.plan = model, plan
        self.choose_adapters, self.adapters = adapters, None
        self.cache: Cache | None = None
        self.logits: Tensor | None = None

    @torch.inference_mode()
    def start(self, windows: Sequence[int], histories: Tensor) -> None:
        # The cache is as long as the window's inputs: rotary angles depend on that length.
        context = max(self.plan.windows[i].num_inputs for i in windows)
        shape = (len(windows), context)
        if self.cache is not None and self.cache.tokens.shape == shape:
            self.cache.clear()
        else:
            self.cache = self.model.new_cache(*shape)
        self.adapters = self.choose_adapters(windows)
        self._advance(histories)

    @torch.inference_mode()
    def log_probs(self) -> Tensor:
        if self.logits is None:
            raise ValueError("nothing was read yet: call start() with a window's history first")
        return torch.log_softmax(self.logits.double(), dim=-1)

    @torch.inference_mode()
    def push(self, tokens: Tensor) -> None:
        if self.cache is not None and self.cache.length < self.cache.context:
            self._advance(tokens[:, None])

    def _advance(self, tokens: Tensor) -> None:
        assert self.cache is not None
        device = self.model.embed.weight.device
        logits = next_logits(self.model, tokens.to(device), self.cache, self.adapters)
        self.logits = logits.cpu()
