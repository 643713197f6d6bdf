"""Encoding in settled arithmetic: the score's own walk, and an integer coder behind it.

The slices of all targets come from scoring in batches. They are written in the order in which a
decoder will ask for them, which reads token by token (`bitstream.py`).
"""

import time
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fairway.coding.symbols import TextEncoder
from fairway.evaluate.bpb import Score
from fairway.evaluate.chunks import Chunk, ChunkPlan, read_chunks
from fairway.evaluate.clocked import Chunks, Clocked
from fairway.evaluate.predictor import Reader, score_stream
from fairway.evaluate.settled import SettledPredictor
from fairway.proof.bitstream import Encoded, WalkConfig, in_step
from fairway.proof.coded import Coded
from fairway.proof.reproducible import Checkpoints
from fairway.runtime.progress import Progress, silent
from fairway.runtime.tensor_file import under
from fairway.tokens.val_text import ValText


class CodedScore:
    """A settled predictor whose targets are written to a bitstream as they are scored.

    `book` has to be called with each chunk once it is booked. The state holds the bits so far, so
    that an interrupted evaluation goes on with them.

    predictor  fresh
    tokens     (N,) int64, the stream that the plans index
    """

    def __init__(self, predictor: SettledPredictor, tokens: Tensor, config: WalkConfig) -> None:
        self.predictor, self.tokens, self.config = predictor, tokens, config
        self.encoder, self.checkpoints = TextEncoder(), Checkpoints(config.every)

    def score(self, chunk: Chunk) -> Tensor:
        return self.predictor.score(chunk)

    def learn(self, chunk: Chunk) -> None:
        self.predictor.learn(chunk)

    def skip(self, chunk: Chunk) -> None:
        self.predictor.skip(chunk)

    def reader(self, plan: ChunkPlan) -> Reader:
        return self.predictor.reader(plan)

    def book(self, chunk: Chunk, nats: Tensor) -> None:
        """Write down the chunk that was scored last."""
        order, positions, ends = coding_order(chunk.plan, self.config)
        self.encoder.push_slices(*(part.numpy()[order] for part in self.predictor.scored))
        came = self.tokens[positions]
        for begin, end in zip([0, *ends], ends, strict=False):
            self.checkpoints.add(came[begin:end])

    def state_dict(self) -> dict[str, Tensor]:
        written = torch.from_numpy(np.frombuffer(self.encoder.state(), np.uint8).copy())
        state = {"encoder": written, "checkpoints": self.checkpoints.state()}
        return self.predictor.state_dict() | {f"code/{k}": v for k, v in state.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        code = under("code/", state)
        self.predictor.load_state_dict(state)
        self.encoder = TextEncoder.from_state(code["encoder"].numpy().tobytes())
        self.checkpoints.load_state(code["checkpoints"])

    def finish(self, score: Score, seconds: float) -> Coded:
        """All of it, once the whole text was scored, which took so long."""
        ledger = self.predictor.ledger
        return Coded(
            encoded=Encoded(self.encoder.finish(), self.checkpoints.finish(), score.nats),
            claim=score,
            seconds=seconds,
            margins=ledger.margins,
            ties=ledger.ties,
        )


def encode_settled(
    predictor: SettledPredictor,
    plans: Sequence[ChunkPlan],
    text: ValText,
    config: WalkConfig,
    *,
    learned: Chunks | None = None,
    progress: Progress = silent,
) -> Coded:
    """The bits of every target of `plans`, from one pass that scores and learns.

    predictor  fresh
    learned    the chunks to learn from; None: all
    """
    started = time.perf_counter()
    coded = CodedScore(predictor, text.tokens.long(), config)
    total = sum(plan.num_targets for plan in plans)
    # No lesson after the last target: a decoder gives none, and its ties would be numbers for
    # nobody.
    walked = Clocked(coded, learned, targets_left=total)

    def book(chunk: Chunk, nats: Tensor) -> None:
        coded.book(chunk, nats)
        progress(coded.checkpoints.num_tokens, total)

    score = score_stream(walked, read_chunks(plans, text), book)
    return coded.finish(score, time.perf_counter() - started)


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
