"""A row of the settled mixture in C++ is the plain one, to the last bit."""

import numpy as np
import pytest
import torch

from fairway.evaluate.learners.gates import Gates
from fairway.evaluate.learners.mixture import Mixture, RowState
from fairway.evaluate.learners.ngram_compiled import new_memory
from fairway.evaluate.learners.settled_mixture_compiled import CompiledRow, new_row
from fairway.evaluate.learners.settled_row import SettledRow
from fairway.runtime.native import explain, library, switched_off

pytestmark = pytest.mark.skipif(library("ngram") is None, reason=explain("ngram"))
VOCAB = 50


def fresh_row() -> SettledRow:
    config = Mixture()
    memory = new_memory(config.orders, config.fade, VOCAB, portable=True)
    return new_row(RowState(memory, Gates(memory.orders_of_kinds(), memory=0.99, open=0.8)))


def both() -> tuple[SettledRow, SettledRow]:
    with switched_off():
        plain = fresh_row()
    assert type(plain) is SettledRow
    compiled = fresh_row()
    assert isinstance(compiled, CompiledRow)
    return compiled, plain


def text_and_model(number: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    tokens = rng.integers(0, 7, number)  # few, so that much is seen again
    sizes = rng.integers(1, 1 << 24, (number, VOCAB)) ** rng.integers(1, 2, (number, 1))
    return tokens, np.cumsum(sizes, axis=1)


def test_reading_what_is_known() -> None:
    tokens, model = text_and_model(400)
    compiled, plain = both()
    for begin in range(0, 400, 100):
        part = slice(begin, begin + 100)
        for row in (compiled, plain):
            row.memory.stand_after(tokens[max(0, begin - 30) : begin].tolist())
        found, same = (row.read(model[part], tokens[part]) for row in (compiled, plain))
        assert np.array_equal(found, same)
    assert torch.equal(compiled.gates.state(), plain.gates.state())


def test_token_by_token_as_at_once() -> None:
    tokens, model = text_and_model(300)
    at_once = fresh_row().read(model, tokens)
    for row in both():
        row.targets_left = 300
        for place, token in enumerate(tokens.tolist()):
            ends = row.look(torch.from_numpy(model[place]))
            start = int(ends[token - 1]) if token else 0
            assert at_once[:, place].tolist() == [start, int(ends[token]) - start, int(ends[-1])]
            row.push(token)
        assert row.position == 300
