"""Encoding in settled arithmetic: the score's own walk, and an integer coder behind it.

The slices of all targets come from scoring in batches. They are written in the order in which a
decoder will ask for them, which reads token by token (`bitstream.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fairway.coding.symbols import TextEncoder
from fairway.evaluate.bpb import Score
from fairway.evaluate.chunks import Chunk, ChunkPlan, read_chunks
from fairway.evaluate.clocked import Chunks, Clocked
from fairway.evaluate.ledger import Ties
from fairway.evaluate.predictor import score_stream
from fairway.evaluate.settled import SettledPredictor
from fairway.proof.bitstream import Encoded, WalkConfig, in_step
from fairway.proof.reproducible import Checkpoints
from fairway.runtime.progress import Progress, silent
from fairway.tokens.val_text import ValText


@dataclass(frozen=True)
class SettledEncoding:
    """What `encode_settled` made: the bits, the ties a decoder must be told, and the score."""

    encoded: Encoded
    ties: Ties = field(repr=False)
    score: Score


def encode_settled(
    predictor: SettledPredictor,
    plans: Sequence[ChunkPlan],
    text: ValText,
    config: WalkConfig,
    *,
    learned: Chunks | None = None,
    progress: Progress = silent,
) -> SettledEncoding:
    """The bits of every target of `plans`, from one pass that scores and learns.

    predictor  fresh
    learned    the chunks to learn from; None: all
    """
    encoder = TextEncoder()
    checkpoints, tokens = Checkpoints(config.every), text.tokens.long()
    total = sum(plan.num_targets for plan in plans)
    # No lesson after the last target: a decoder gives none, and its ties would be numbers for
    # nobody.
    walked = Clocked(predictor, learned, targets_left=total)

    def write(chunk: Chunk, nats: Tensor) -> None:
        order, positions, ends = coding_order(chunk.plan, config)
        encoder.push_slices(*(part.numpy()[order] for part in predictor.scored))
        came = tokens[positions]
        for begin, end in zip([0, *ends], ends, strict=False):
            checkpoints.add(came[begin:end])
        progress(checkpoints.num_tokens, total)

    score = score_stream(walked, read_chunks(plans, text), write)
    encoded = Encoded(encoder.finish(), checkpoints.finish(), score.nats)
    return SettledEncoding(encoded, predictor.ledger.ties, score)


def coding_order(
    plan: ChunkPlan, config: WalkConfig
) -> tuple[NDArray[np.int64], NDArray[np.int64], list[int]]:
    """The targets of a plan as a decoder asks for them: (n,) numbers in the order of the plan, (n,)
    positions in the stream, and where each of its steps ends among them."""
    offsets = np.array(plan.offsets)
    order, positions, sizes = [np.empty(0, np.int64)], [np.empty(0, np.int64)], [0]
    for members in in_step(plan, config.rows, config.pad_to):
        chosen = np.array(members)
        lengths = np.array([plan.windows[i].num_targets for i in members])
        first = np.array([plan.windows[i].score_from for i in members])
        steps = np.arange(lengths.max())[:, None]
        is_open = steps < lengths  # (steps, rows)
        order.append((offsets[chosen] + steps)[is_open])
        positions.append((first + steps)[is_open])
        sizes += is_open.sum(1).tolist()
    return np.concatenate(order), np.concatenate(positions), np.cumsum(sizes)[1:].tolist()
