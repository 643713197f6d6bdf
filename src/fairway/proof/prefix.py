"""Which part of an evaluation a bitstream holds, and what a decoder must be told to plan it.

A decoder knows neither how long the text is nor where documents end, and an evaluation's plan rests
on both. These few numbers travel in the file and are counted there as side information. The plan of
a part is the beginning of the plan of the whole: same windows, same chunks, same learning rates.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from fairway.coding.codecs import shuffle, unshuffle
from fairway.evaluate.chunks import ChunkPlan
from fairway.evaluate.config import EvaluateConfig, plan_evaluation
from fairway.evaluate.windows import document_spans
from fairway.tokens.val_text import ValText


@dataclass(frozen=True, kw_only=True)
class Prefix:
    """The first `num_tokens` of a text, or the documents that are scored first, as one text.

    num_chunks   of the whole evaluation, for learning rates depend on it
    first_token  stands at the beginning of the text, where nobody scores it
    starts       positions of the documents' BOS; empty where the plan does not depend on them
    documents    of the whole text, that these are, ascending; None: its first ones. No decoder
                 asks for them, and no proof file tells
    """

    num_tokens: int
    num_chunks: int
    first_token: int
    starts: tuple[int, ...] = ()
    documents: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        starts = self.starts
        rising = all(a < b for a, b in pairwise(starts))
        if starts and not (rising and starts[0] == 0 and starts[-1] < self.num_tokens):
            raise ValueError(
                f"document starts {starts[:3]}... of {self.num_tokens:,} tokens must rise from 0"
            )

    def plans(self, config: EvaluateConfig) -> list[ChunkPlan]:
        plans = plan_evaluation(config, self.num_tokens, self.starts or (0,))
        return [replace(plan, num_chunks=self.num_chunks) for plan in plans]

    def of(self, text: ValText) -> ValText:
        """This part of the whole text."""
        if self.documents is None:
            return text.first(self.num_tokens - 1)
        return text.only(self.documents)

    def given(self, bos_id: int) -> Tensor:
        """(num_tokens,) int64: what is known before the first bit, -1 elsewhere."""
        tokens = torch.full((self.num_tokens,), -1)
        tokens[list(self.starts)] = bos_id
        tokens[0] = self.first_token
        return tokens


def prefix_of(
    config: EvaluateConfig,
    tokens: Tensor,
    bos_id: int,
    *,
    num_targets: int | None = None,
    num_documents: int | None = None,
) -> Prefix:
    """The part that is the first `num_targets` targets, or the first documents.

    tokens  (n,) int64, the whole text that is evaluated

    Where the order of scoring or its strides follow from documents' lengths, the part is as many
    batches of documents, the first ones in that order, as hold so much: any other would be planned
    otherwise than in the whole.
    """
    all_starts = (tokens == bos_id).nonzero()[:, 0].tolist()
    whole_starts = all_starts if config.documents else (0,)
    if len(tokens) < 2:
        raise ValueError("there is nothing to prove: the text holds no token after its first")
    if num_targets is not None and num_documents is not None:
        raise ValueError("say how many tokens to prove, or how many documents, not both")
    stop = len(tokens)
    if num_targets is not None:
        if num_targets < 1:
            raise ValueError(f"{num_targets} tokens to prove: needs at least 1")
        stop = min(stop, num_targets + 1)
    if num_documents is not None:
        if not 1 <= num_documents <= len(all_starts):
            raise ValueError(
                f"{num_documents} documents to prove, and the text has {len(all_starts)}: choose a "
                f"number from 1 to {len(all_starts)}"
            )
        if num_documents < len(all_starts):
            stop = all_starts[num_documents] + 1  # the next BOS says that the last one ended
    by_length = config.order != "file" or bool(config.short_strides)
    chosen = None
    if by_length and (num_targets is not None or num_documents is not None):
        chosen = _first_batches(config, len(tokens), all_starts, num_targets, num_documents)
        all_starts, stop = _moved_together(all_starts, len(tokens), chosen)
    starts = [start for start in all_starts if start < stop - 1]
    if config.documents and (not starts or starts[0] != 0):
        raise ValueError(
            f"the text begins with token {int(tokens[0])} instead of the BOS {bos_id}, so its "
            "documents cannot be kept apart; set EvaluateConfig.documents=False"
        )
    return Prefix(
        num_tokens=stop,
        num_chunks=len(plan_evaluation(config, len(tokens), whole_starts)),
        first_token=int(tokens[0]),
        starts=tuple(starts) if config.documents else (),
        documents=chosen,
    )


def _first_batches(
    config: EvaluateConfig,
    num_tokens: int,
    starts: Sequence[int],
    num_targets: int | None,
    num_documents: int | None,
) -> tuple[int, ...]:
    """The documents of the fewest batches that hold so many targets, or documents."""
    chosen: dict[int, None] = {}
    targets, batch = 0, -1
    for plan in plan_evaluation(config, num_tokens, starts):
        if (
            plan.batch != batch
            and (targets >= (num_targets or 0))
            and (len(chosen) >= (num_documents or 0))
            and chosen
        ):
            break
        batch = plan.batch
        chosen |= dict.fromkeys(plan.rows)
        targets += plan.num_targets
    return tuple(sorted(chosen))


def _moved_together(
    starts: Sequence[int], num_tokens: int, chosen: Sequence[int]
) -> tuple[list[int], int]:
    """Where these documents start once the others are gone, and how long their text is."""
    spans = document_spans(starts, num_tokens)
    moved, at = [], 0
    for document in chosen:
        moved.append(at)
        first, last = spans[document]
        at += last - first - 1
    return moved, at + 1


def pack_starts(starts: tuple[int, ...]) -> bytes:
    """Documents' positions as their distances, in a form that compresses; (n,) rising from 0."""
    return shuffle(np.diff(np.array(starts, dtype="<u4")).tobytes(), 4) if starts else b""


def unpack_starts(data: bytes) -> tuple[int, ...]:
    """Inverse of `pack_starts`; the first document starts at 0."""
    if not data:
        return ()
    lengths = np.frombuffer(unshuffle(data), "<u4")
    return (0, *np.cumsum(lengths, dtype=np.int64).tolist())
