"""What the encoder wrote, the decoder reads back, learning as it goes; its size is the score."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fairway.evaluate.chunks import (
    Chunk,
    ChunkPlan,
    plan_chunks,
    plan_documents,
    read_chunks,
)
from fairway.evaluate.frozen import Frozen
from fairway.evaluate.learners.documents import DocumentAdapters, DocumentPredictor
from fairway.evaluate.learners.sgd import Sgd, SgdPredictor
from fairway.evaluate.predictor import Predictor, Reader, score_stream
from fairway.model.adapters import AdapterConfig
from fairway.model.gpt import GPT
from fairway.proof.bitstream import WalkConfig, decode_stream, encode_stream, in_step
from fairway.proof.reproducible import NotReproducible
from fairway.tokens.val_text import ValText

from .conftest import VOCAB, text, tiny_model

ADAPTERS = DocumentAdapters(
    adapters=AdapterConfig(rank=2, alpha=4.0, targets=("query", "mlp", "head")), lr=0.02
)
LEARN = Sgd(chunk_tokens=32, epochs=2, lr=0.05)

PREDICTORS: dict[str, Callable[[GPT], Predictor]] = {
    "frozen": Frozen,
    "sgd": lambda model: SgdPredictor(model, LEARN, context=16),
    "adapters": lambda model: DocumentPredictor(model, ADAPTERS, rows=3),
}


def known(tokens: Tensor, starts: list[int]) -> Tensor:
    """All that a decoder has before the first bit: where documents start, and their BOS."""
    given = torch.full_like(tokens, -1)
    given[starts] = tokens[starts]
    return given


def plans_for(name: str, tokens: Tensor, starts: list[int]) -> list[ChunkPlan]:
    if name == "adapters":
        return plan_documents(starts, len(tokens), context=16, stride=8, rows=3)
    return plan_chunks(len(tokens), context=16, stride=8, chunk_tokens=32)


@pytest.mark.parametrize("name", PREDICTORS)
@pytest.mark.parametrize("lengths", [[100], [40, 3, 1, 70, 22, 2]])
def test_the_text_comes_back_and_its_size_is_the_score(name: str, lengths: list[int]) -> None:
    tokens, starts = text(lengths)
    plans, walk = plans_for(name, tokens, starts), WalkConfig(rows=4, pad_to=16, every=20)
    given, make = known(tokens, starts), lambda: PREDICTORS[name](tiny_model())

    coded = encode_stream(make, plans, tokens, walk, given=given)
    decoded = decode_stream(
        make, plans, coded.data, walk, given=given, checkpoints=coded.checkpoints
    )
    whole = ValText(tokens, torch.ones(len(tokens) - 1, dtype=torch.long), ())
    score = score_stream(make(), read_chunks(plans, whole))

    assert torch.equal(decoded, tokens)
    assert coded.nats == pytest.approx(score.nats, abs=1e-2)
    assert abs(8 * len(coded.data) - score.nats / math.log(2)) < 64


@pytest.mark.parametrize("name", ["sgd", "adapters"])
def test_the_decoder_learns_what_the_encoder_learned(name: str) -> None:
    """A decoder that did not learn would lose its way, and the learning pays for itself."""
    tokens, starts = text([120, 90, 70])
    plans, walk = plans_for(name, tokens, starts), WalkConfig(pad_to=16, every=50)
    given = known(tokens, starts)
    learned = encode_stream(
        lambda: PREDICTORS[name](tiny_model()), plans, tokens, walk, given=given
    )
    frozen = encode_stream(lambda: Frozen(tiny_model()), plans, tokens, walk, given=given)
    assert len(learned.data) < len(frozen.data)
    with pytest.raises(NotReproducible, match=r"other probabilities"):
        decode_stream(
            lambda: Frozen(tiny_model()),
            plans,
            learned.data,
            walk,
            given=given,
            checkpoints=learned.checkpoints,
        )


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=5),
    st.sampled_from([(8, 8), (8, 3), (16, 4)]),
    st.integers(1, 4),
    st.booleans(),
)
def test_any_documents_come_back(
    lengths: list[int], shape: tuple[int, int], rows: int, stretched: bool
) -> None:
    """Windows longer than the training context are stretched, so only equals go together."""
    tokens, starts = text(lengths)
    if len(tokens) < 2:
        return
    model = tiny_model(train_context=6 if stretched else 16)
    plans = plan_documents(starts, len(tokens), *shape, rows=3)
    walk = WalkConfig(rows=rows, pad_to=model.config.train_context, every=16)
    given = known(tokens, starts)
    coded = encode_stream(lambda: Frozen(model), plans, tokens, walk, given=given)
    decoded = decode_stream(
        lambda: Frozen(model), plans, coded.data, walk, given=given, checkpoints=coded.checkpoints
    )
    assert torch.equal(decoded, tokens)
    bytes_per_target = torch.ones(len(tokens) - 1, dtype=torch.long)
    score = score_stream(Frozen(model), read_chunks(plans, ValText(tokens, bytes_per_target, ())))
    assert coded.nats == pytest.approx(score.nats, abs=1e-2)


def test_windows_in_step_belong_to_different_rows_and_follow_their_own_past() -> None:
    tokens, starts = text([40, 3, 70, 22, 2, 30])
    plans = plan_documents(starts, len(tokens), context=16, stride=8, rows=6)
    plans += plan_chunks(len(tokens), context=16, stride=8, chunk_tokens=64)
    for plan in plans:
        seen: list[int] = []
        for members in in_step(plan, rows=4, pad_to=16):
            assert len({plan.rows[i] for i in members}) == len(members) <= 4
            assert len({plan.windows[i].score_from - plan.windows[i].start for i in members}) == 1
            for i in members:
                earlier = [j for j in range(i) if plan.rows[j] == plan.rows[i]]
                assert set(earlier) <= set(seen)
            seen += members
        assert sorted(seen) == list(range(len(plan.windows)))


class Recorder:
    """Stands in for a model: uniform odds, and a list of what it was given, in order."""

    def __init__(self) -> None:
        self.calls: list[tuple] = []

    def score(self, chunk: Chunk) -> Tensor:
        raise AssertionError("a decoder has nothing to score")

    def learn(self, chunk: Chunk) -> None:
        self.calls.append(("learn", [t.tolist() for t in chunk.texts]))

    def skip(self, chunk: Chunk) -> None:
        raise AssertionError("no clock is running")

    def reader(self, plan: ChunkPlan) -> Reader:
        self.calls.append(("reader", plan.index))
        return self

    def start(self, windows, histories: Tensor) -> None:
        self.rows = len(windows)
        self.calls.append(("start", tuple(windows), histories.tolist()))

    def log_probs(self) -> Tensor:
        return torch.full((self.rows, VOCAB), -math.log(VOCAB), dtype=torch.float64)

    def push(self, tokens: Tensor) -> None:
        self.calls.append(("push", tokens.tolist()))

    def state_dict(self) -> dict[str, Tensor]:
        return {}

    def load_state_dict(self, state) -> None: ...


def test_the_decoder_asks_exactly_what_the_encoder_asked() -> None:
    """Same calls, same shapes, same values: only then are floats sure to be the same."""
    tokens, starts = text([40, 3, 33])
    for plans in (
        plan_documents(starts, len(tokens), context=16, stride=8, rows=2),
        plan_chunks(len(tokens), context=16, stride=8, chunk_tokens=16),
    ):
        walk, recorders = WalkConfig(pad_to=16), [Recorder(), Recorder()]
        given = known(tokens, starts)
        coded = encode_stream(lambda r=recorders: r[0], plans, tokens, walk, given=given)
        decode_stream(
            lambda r=recorders: r[1],
            plans,
            coded.data,
            walk,
            given=given,
            checkpoints=coded.checkpoints,
        )
        assert recorders[0].calls == recorders[1].calls
        verbs = [call[0] for call in recorders[0].calls if call[0] in ("reader", "learn")]
        assert verbs == ["reader", "learn"] * (len(plans) - 1) + ["reader"]


def test_a_plan_that_reads_ahead_of_itself_fails_while_encoding() -> None:
    tokens, starts = text([60])
    plans = plan_chunks(len(tokens), context=16, stride=8, chunk_tokens=16)
    with pytest.raises(IndexError):
        encode_stream(
            lambda: Frozen(tiny_model()),
            plans[::-1],
            tokens,
            WalkConfig(pad_to=16),
            given=known(tokens, starts),
        )


def test_other_weights_are_refused_at_the_first_checkpoint() -> None:
    """As on a machine that rounds differently: the smallest change, and no wrong text."""
    tokens, starts = text([300])
    plans = plan_chunks(len(tokens), context=16, stride=8, chunk_tokens=64)
    walk, given = WalkConfig(pad_to=16, every=40), known(tokens, starts)
    coded = encode_stream(lambda: Frozen(tiny_model()), plans, tokens, walk, given=given)
    other = tiny_model()
    with torch.no_grad():
        other.embed.weight.mul_(1.01)
    with pytest.raises(NotReproducible, match=r"checkpoint 1 of 8, after 40 tokens"):
        decode_stream(
            lambda: Frozen(other),
            plans,
            coded.data,
            walk,
            given=given,
            checkpoints=coded.checkpoints,
        )


def test_bits_that_end_early_are_refused() -> None:
    tokens, starts = text([200])
    plans = plan_chunks(len(tokens), context=16, stride=8, chunk_tokens=64)
    walk, given = WalkConfig(pad_to=16, every=1000), known(tokens, starts)
    coded = encode_stream(lambda: Frozen(tiny_model()), plans, tokens, walk, given=given)
    for data in (coded.data[:30], coded.data + b"abcdefghi"):
        with pytest.raises(NotReproducible):
            decode_stream(
                lambda: Frozen(tiny_model()),
                plans,
                data,
                walk,
                given=given,
                checkpoints=coded.checkpoints,
            )
