"""The score of a published script's own evaluation of documents, by our evaluator.

For whoever wants to know that the two are the same: a checkpoint, the script's variables, and what
its adapters began with, under the script's own names. Documents are scored longest first, as every
script since #1530 does.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor

from fairway.evaluate.chunks import Chunk, read_chunks
from fairway.evaluate.config import EvaluateConfig, make_predictor, plan_text
from fairway.evaluate.learners.documents import DocumentPredictor
from fairway.evaluate.learners.phased import PhasedPredictor
from fairway.evaluate.learners.tilt import StreamTilt
from fairway.evaluate.predictor import ModelPredictor, Predictor, score_stream
from fairway.interop.environment import parse_environment
from fairway.interop.published_weights import load_checkpoint
from fairway.model.adapters import Target
from fairway.model.gpt import GPT
from fairway.tokens.val_text import ValText

ADAPTERS: dict[str, Target] = {  # the scripts' names for what has adapters
    "q_loras": "query",
    "k_loras": "key",
    "v_loras": "value",
    "o_loras": "output",
    "mlp_loras": "mlp",
}
Starts = Tensor | Sequence[Mapping[str, Tensor]]


def score_documents(
    lineage: str,
    env: Mapping[str, str],
    state_dict: Mapping[str, Tensor],
    tokens: Tensor,
    documents: Sequence[int],
    adapter_starts: Starts,
) -> Tensor:
    """Nats (N - 1,) float64 of tokens[1:] in stream order, adapted as the script adapts.

    lineage, env, state_dict  as for `load_checkpoint`
    tokens                    (N,) ids
    documents                 position of each document's BOS, ascending, the first one 0
    adapter_starts            what the first matrix of every adapter begins with: one (rank, width)
                              for all, or by the script's names (`q_loras.0.A`) tensors (documents
                              side by side, rank, width), once for the start and once more for each
                              pause

    ValueError where the variables or tensors are not the script's, or starts do not fit.
    """
    model, config = published_evaluator(lineage, env, state_dict, len(documents))
    text = ValText(tokens.long(), torch.zeros(len(tokens) - 1, dtype=torch.long), tuple(documents))
    nats = torch.full((text.num_targets,), torch.nan, dtype=torch.float64)

    def record(chunk: Chunk, scored: Tensor) -> None:
        parts = scored.split([window.num_targets for window in chunk.plan.windows])
        for window, part in zip(chunk.plan.windows, parts, strict=True):
            nats[window.score_from - 1 : window.stop - 1] = part

    predictor = started(published_predictor(model, config, text), adapter_starts)
    score_stream(predictor, read_chunks(plan_text(config, text), text), record)
    return nats


def published_evaluator(
    lineage: str, env: Mapping[str, str], state_dict: Mapping[str, Tensor], documents: int
) -> tuple[GPT, EvaluateConfig]:
    """A script's model, and its evaluation of so many documents in the script's own order."""
    environment = parse_environment(lineage, env)
    if not environment.get("TTT_ENABLED", False):
        raise ValueError(f"{lineage} under these variables does not adapt to documents")
    if "PHASED_TTT_PREFIX_DOCS" in environment.values:  # pauses are shares of what there is
        most = min(environment["PHASED_TTT_PREFIX_DOCS"], documents)
        environment = replace(
            environment, values={**environment.values, "PHASED_TTT_PREFIX_DOCS": most}
        )
    config = replace(environment.script.evaluation(environment), order="longest_first")
    if config.learner.chunk_targets() is not None:  # learns from a stream, not from documents
        raise ValueError(f"{lineage} under these variables does not adapt to documents")
    return load_checkpoint(lineage, env, state_dict), config


def published_predictor(model: GPT, config: EvaluateConfig, text: ValText) -> Predictor:
    """As the script predicts: hints, where it has any, are of the whole text in stream order.

    Nothing that is scored longest first can be decoded with them (`StreamTilt`).
    """
    base = make_predictor(model, replace(config, tilt=None))
    if config.tilt is None:
        return base
    return StreamTilt(cast(ModelPredictor, base), config.tilt, text.tokens)


def started(predictor: Predictor, starts: Starts) -> Predictor:
    """`predictor`, its adapters beginning with given numbers in place of random ones."""
    base = predictor.base if isinstance(predictor, StreamTilt) else predictor
    local = base.local if isinstance(base, PhasedPredictor) else base
    assert isinstance(local, DocumentPredictor)
    shapes = {key: down.shape for key, down in local.bank.down.items()}

    def draw(renewals: int, batch: int | None) -> dict[str, Tensor]:
        if isinstance(starts, Tensor):
            return {key: starts.expand(shape) for key, shape in shapes.items()}
        if renewals >= len(starts):
            raise ValueError(
                f"adapter_starts has {len(starts)} entries: one for the start and one for each "
                f"pause are needed, {renewals + 1} so far"
            )
        named = starts[renewals]
        return {key: named[published_name(key)].expand(shape) for key, shape in shapes.items()}

    local.draw = draw
    local.restart()
    return predictor


def published_name(key: str) -> str:
    """The script's name of an adapter's first matrix.

    >>> published_name("query_3"), published_name("head_0")
    ('q_loras.3.A', 'lm_head_lora.A')
    """
    target, _, slot = key.rpartition("_")
    theirs = {ours: name for name, ours in ADAPTERS.items()}
    return "lm_head_lora.A" if target == "head" else f"{theirs[target]}.{slot}.A"
