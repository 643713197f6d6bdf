"""A part of a text to bits, in the arithmetic that its evaluation names.

Natively it is scored in batches for the claim and then read token by token for the bits; settled,
one walk gives both. What becomes of the bits is in `prove.py`.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from fairway.artifact.loaded_model import LoadedModel
from fairway.evaluate.chunks import ChunkPlan, read_chunks
from fairway.evaluate.clocked import Chunks, following
from fairway.evaluate.config import EvaluateConfig, make_predictor, make_settled_predictor
from fairway.evaluate.predictor import Predictor, score_stream
from fairway.proof.bitstream import WalkConfig, encode_stream
from fairway.proof.coded import Coded
from fairway.proof.prefix import Prefix
from fairway.proof.settled_stream import encode_settled
from fairway.runtime.progress import Progress, silent
from fairway.tokens.val_text import ValText


@dataclass(frozen=True, kw_only=True)
class Part:
    """What is encoded, and all that its code follows from.

    text     this part of the whole
    config   resolved: its context is known
    learned  the chunks to learn from, as runs [first, stop); None: all
    seed     of the predictor
    """

    loaded: LoadedModel
    config: EvaluateConfig
    prefix: Prefix
    text: ValText = field(repr=False)
    walk: WalkConfig
    learned: Chunks | None = None
    seed: int = 0

    @property
    def plans(self) -> Sequence[ChunkPlan]:
        return self.prefix.plans(self.config)


def encode(part: Part, progress: Progress = silent) -> Coded:
    """The bits of all targets of a part, on this machine's current threads."""
    return (_settled if part.config.settled else _native)(part, progress)


def _native(part: Part, progress: Progress) -> Coded:
    model, plans = part.loaded.model, part.plans

    def new_predictor() -> Predictor:
        return following(make_predictor(model, part.config, seed=part.seed), part.learned)

    claim = score_stream(new_predictor(), read_chunks(plans, part.text))
    started = time.perf_counter()
    encoded = encode_stream(
        new_predictor,
        plans,
        part.text.tokens.long(),
        part.walk,
        given=part.prefix.given(model.config.bos_id),
        progress=progress,
    )
    return Coded(encoded=encoded, claim=claim, seconds=time.perf_counter() - started)


def _settled(part: Part, progress: Progress) -> Coded:
    predictor = make_settled_predictor(part.loaded.model, part.config, seed=part.seed)
    return encode_settled(
        predictor, part.plans, part.text, part.walk, learned=part.learned, progress=progress
    )
