"""A packed model with its full evaluation, as a scorer that every probe can call.

In a process of its own this file is the script whose `score` is called; the model file, the data
folder, the seed, the number of threads and the plug-ins the user named are its arguments.
"""

import functools
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fairway.artifact.loaded_model import LoadedModel, load_model
from fairway.audit.scorer import Answer, ProcessScorer
from fairway.audit.scoring_order import ScoringOrder
from fairway.evaluate.chunks import Chunk, ChunkPlan, read_chunks
from fairway.evaluate.config import EvaluateConfig, make_predictor, plan_text
from fairway.evaluate.predictor import Predictor, score_stream
from fairway.proof.prove import evaluation_of, validation_text
from fairway.runtime.distributed import environment_alone
from fairway.runtime.plugins import load_plugin, plugin_arguments
from fairway.tokens.byte_count import byte_table
from fairway.tokens.shards import DataFolder
from fairway.tokens.val_text import ValText


@dataclass(frozen=True, eq=False)
class PackedModel:
    """A model file, and the data folder it is scored on."""

    path: Path
    data: DataFolder
    loaded: LoadedModel
    config: EvaluateConfig
    seed: int

    @classmethod
    def open(cls, path: Path, data: DataFolder, seed: int) -> "PackedModel":
        """ValueError where the two cannot be read or do not belong together."""
        loaded = load_model(path)
        validation_text(loaded, data)  # refuses another tokenizer's folder
        config = evaluation_of(loaded).resolved(loaded.model.config.train_context)
        return cls(path, data, loaded, config, seed)

    def new_predictor(self) -> Predictor:
        return make_predictor(self.loaded.model, self.config, seed=self.seed)

    def fresh_process(self) -> ProcessScorer:
        """The same evaluation by a process that knows nothing."""
        threads = str(torch.get_num_threads())  # the order of sums follows it
        arguments = [str(self.path), str(self.data.path), str(self.seed), threads]
        plugins = [word for word in plugin_arguments() if word != "--plugin"]
        return ProcessScorer(__file__, score.__name__, arguments + plugins, environment_alone())


@dataclass
class ModelScorer:
    """The full evaluation of `text`, or of an edit of it, whose chunks and bytes are the text's.

    A `Scorer` that lets errors through: they would be ours.
    """

    packed: PackedModel
    text: ValText

    def __post_init__(self) -> None:
        self.name = str(self.packed.path)
        self.plans = plan_text(self.packed.config, self.text)

    def order(self) -> ScoringOrder | None:
        """The order in which the plans score documents; None where it is that of the file."""
        if self.packed.config.order == "file":
            return None
        places = np.concatenate([[0], *(positions(plan).numpy() for plan in self.plans)])
        name = self.packed.config.order.replace("_", " ")
        return ScoringOrder.of_lengths(self.text.tokens.numpy(), places, name)

    def walk(self, predictor: Predictor, tokens: Tensor) -> Tensor:
        """Nats (n - 1,) float64 of tokens (n,), as many as the text has, by the scoring walk."""
        return walk(predictor, self.plans, replace(self.text, tokens=tokens))

    def call(self, tokens: np.ndarray, limit_seconds: float) -> Answer:
        """Of a stream of any length: another than the text's is planned as a text of its own."""
        stream, predictor = torch.from_numpy(tokens.copy()), self.packed.new_predictor()
        if len(stream) == len(self.text.tokens):
            return self.answer(self.walk(predictor, stream))
        tokenizer = self.packed.loaded.tokenizer
        counts = torch.from_numpy(byte_table(tokenizer).target_bytes(tokens))
        starts = np.flatnonzero(tokens == tokenizer.bos_id).tolist()
        text = ValText(stream, counts, tuple(starts))
        nats = walk(predictor, plan_text(self.packed.config, text), text)
        return self.answer(nats, counts)

    def answer(self, nats: Tensor, target_bytes: Tensor | None = None) -> Answer:
        counts = self.text.target_bytes if target_bytes is None else target_bytes
        counts = counts.double().numpy()
        return Answer(nats=nats.numpy(), num_bytes=counts, dtype="float64", shape=tuple(nats.shape))

    def fresh(self) -> ProcessScorer:
        return self.packed.fresh_process()

    def close(self) -> None:
        """Nothing is left open."""


def walk(predictor: Predictor, plans: Sequence[ChunkPlan], text: ValText) -> Tensor:
    """Nats (num_targets,) float64 of a text, by the walk that scores; NaN where it never came."""
    nats = torch.full((text.num_targets,), torch.nan, dtype=torch.float64)

    def record(chunk: Chunk, scored: Tensor) -> None:
        nats[positions(chunk.plan) - 1] = scored

    score_stream(predictor, read_chunks(plans, text), record)
    return nats


def positions(plan: ChunkPlan) -> Tensor:
    """(num_targets,) int64: the token that each of a chunk's nats belongs to."""
    runs = [torch.arange(window.score_from, window.stop) for window in plan.windows]
    return torch.cat(runs) if runs else torch.zeros(0, dtype=torch.long)


def score(tokens: np.ndarray) -> np.ndarray | None:
    """Nats (n - 1,) of the first n tokens of the text that the arguments name, or of an edit."""
    model, data, seed, threads, *plugins = sys.argv[1:]
    torch.set_num_threads(int(threads))
    for plugin in plugins:
        load_plugin(plugin)
    return _opened(model, data, int(seed), len(tokens)).call(tokens, limit_seconds=0.0).nats


@functools.cache
def _opened(model: str, data: str, seed: int, num_tokens: int) -> ModelScorer:
    packed = PackedModel.open(Path(model), DataFolder(Path(data)), seed)
    return ModelScorer(packed, ValText.of(packed.data, num_tokens))
