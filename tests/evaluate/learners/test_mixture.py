import dataclasses

import pytest
import torch
from hypothesis import strategies as st

from fairway.evaluate.chunks import cut_chunk
from fairway.evaluate.config import make_predictor
from fairway.evaluate.frozen import Frozen
from fairway.evaluate.learners.mixture import Mixture, MixturePredictor

from ..models import (
    CONFIGS,
    CONTEXT,
    PLAIN,
    VOCAB,
    by_position,
    chunks_of,
    nats_in_order,
    plans_of,
    text,
    tiny_model,
    val_text,
)

MIXED = CONFIGS["mixture"]
FLOATS = st.floats(0.0, 1.0)


def test_it_never_costs_much_and_saves_where_text_repeats() -> None:
    generator = torch.Generator().manual_seed(0)
    noise = torch.cat((torch.tensor([1]), torch.randint(2, VOCAB, (799,), generator=generator)))
    lost = by_position(MIXED, noise, [0]) - by_position(PLAIN, noise, [0])
    assert lost.mean() < 0.0  # the tiny model knows less than the counts do, even of noise
    model = tiny_model()
    likely = noise.clone()
    with torch.inference_mode():  # text the model itself wrote: nobody can know better
        for position in range(1, 300):
            logits = model(likely[None, max(0, position - CONTEXT) : position])[0, -1]
            likely[position] = torch.multinomial(logits.softmax(-1), 1, generator=generator)
    likely = likely[:300]
    lost = by_position(MIXED, likely, [0]) - by_position(PLAIN, likely, [0])
    assert lost.mean() < 0.08

    repeated, starts = text([400, 400])
    saved = by_position(PLAIN, repeated, starts) - by_position(MIXED, repeated, starts)
    assert saved[400:].mean() > 0.3


def test_what_lies_further_back_than_the_context_is_remembered() -> None:
    generator = torch.Generator().manual_seed(1)
    phrase = torch.randint(2, VOCAB, (30,), generator=generator)
    noise = torch.randint(2, VOCAB, (60,), generator=generator)
    tokens = torch.cat((torch.tensor([1]), phrase, noise, phrase, noise[:30], phrase))
    nats = by_position(dataclasses.replace(MIXED, stride=1), tokens, [0])
    first, third = nats[:30], nats[150:]
    assert third[5:].mean() < 0.5 * first[5:].mean()


def test_a_decoders_nats_are_the_scorers_to_a_billionth() -> None:
    """Where both are given the same logits, by a stand-in for the model."""
    tokens, starts = text([60, 50])
    log_probs = torch.randn(VOCAB, VOCAB, generator=torch.Generator().manual_seed(0)).log_softmax(1)

    class Bigram(Frozen):
        def batches(self, chunk):
            for one, _ in super().batches(chunk):
                yield one, log_probs[one.inputs[:, one.start :]]

        def reader(self, plan):
            return _BigramReader(log_probs)

    chunks = chunks_of(MIXED, tokens, starts)
    scorer, decoder = (MixturePredictor(Bigram(tiny_model()), Mixture()) for _ in range(2))
    for chunk in chunks:
        claimed, reader, read = scorer.score(chunk), decoder.reader(chunk.plan), []
        for i, (window, one) in enumerate(zip(chunk.plan.windows, chunk.texts, strict=True)):
            first = window.score_from - window.start
            reader.start([i], one[None, :first])
            for token in one[first:].tolist():
                read.append(-reader.log_probs()[0, token])
                reader.push(torch.tensor([token]))
        assert torch.allclose(claimed, torch.stack(read), atol=1e-9, rtol=0)
        scorer.learn(chunk)
        decoder.learn(chunk)


class _BigramReader:
    def __init__(self, table: torch.Tensor) -> None:
        self.table = table

    def start(self, windows, histories) -> None:
        self.last = histories[:, -1]

    def log_probs(self) -> torch.Tensor:
        return torch.log_softmax(self.table[self.last].double(), -1)

    def push(self, tokens) -> None:
        self.last = tokens


def test_learning_without_scoring_first_learns_the_same() -> None:
    """A decoder reads where the encoder scored; both must end up with the same gates."""
    tokens, starts = text([60, 50])
    chunks = chunks_of(MIXED, tokens, starts)
    scored, unscored = (make_predictor(tiny_model(), MIXED) for _ in range(2))
    nats_in_order(scored, chunks)
    for chunk in chunks:
        unscored.learn(chunk)
    a, b = scored.state_dict(), unscored.state_dict()
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_documents_side_by_side_share_nothing_until_all_have_ended() -> None:
    config = CONFIGS["mixture of adapters"]
    tokens, starts = text([40, 12, 40, 30])
    predictor = make_predictor(tiny_model(), config)
    assert isinstance(predictor, MixturePredictor)
    for plan in plans_of(config, tokens, starts):
        before = len(predictor.committed)
        predictor.learn(cut_chunk(plan, val_text(tokens)))
        grew = len(predictor.committed) > before
        assert grew == (not predictor.row_states)
    texts = torch.cat([window[-n:] for window, n in predictor.committed])
    assert torch.equal(texts, tokens[1:])  # committed in file order, every target once


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="set mixture=None"):
        Mixture(orders=())
    with pytest.raises(ValueError, match="rising lengths"):
        Mixture(orders=(2, 1))
    with pytest.raises(ValueError, match="0 < open < 1"):
        Mixture(open=1.0)
