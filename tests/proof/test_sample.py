"""The beginning of a text, as the guard reads it."""

import torch

from fairway.evaluate.ledger import Margins
from fairway.proof.sample import MOST_KEPT, Sample, Watching

from .conftest import DOCUMENTS, corpus
from .test_guard import WAYS


def test_a_sample_goes_on_after_its_first_lesson() -> None:
    sample = Sample.of(WAYS["sgd and mixture"].resolved(16), corpus(DOCUMENTS * 8), 1, 0)
    plans = list(sample.read())
    assert len(plans) > 1
    assert not any(plan.is_last for plan, _ in plans)
    assert all(chosen for _, chosen in plans)


def test_what_learns_nothing_is_read_and_no_more() -> None:
    text = corpus(DOCUMENTS * 8)
    (_, chosen), *others = Sample.of(WAYS["frozen"].resolved(16), text, 1, 0, 20).read()
    assert not others
    assert len(chosen) == 2  # the first window of 16 targets, the next of 8


def test_what_is_to_be_rounded_is_kept_as_it_came() -> None:
    ledger, learned = Watching(Margins()), torch.randn(MOST_KEPT + 5, dtype=torch.float64)
    gradient = torch.randn(7, dtype=torch.float64)
    before = learned.clone(), gradient.clone()
    ledger.settle_gradients({"a": gradient}, one_by_one=True)
    ledger.settle({"weights/a": learned})
    seen = ledger.seen()
    assert torch.equal(seen["gradients/0/a"], before[1])
    assert torch.equal(seen["learned/8/weights/a"], before[0][::2])
    assert not torch.equal(gradient, before[1])
