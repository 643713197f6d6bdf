"""Comparing earlier prices, and telling what kind of leak it is."""

import numpy as np
import pytest

from fairway.audit import Limits, run_audit
from fairway.audit.causality import planned_edits
from fairway.audit.comparison import Comparison, Noise
from fairway.audit.stream import Edit, pseudo_text

N = 200
TEXT = pseudo_text(32, N)
CALM = Noise(0.0, 2.0**-53)


def comparison(noise: Noise = CALM) -> Comparison:
    return Comparison(lambda tokens: None, TEXT, np.full(N - 1, 3.0), noise, 32)


def see(on: Comparison, edit: Edit, entry: int, nats: float):
    """The edit moved one entry."""
    edited = on.nats.copy()
    edited[entry] += nats
    return on.compare(edit, edit.apply(TEXT, 32), edited)


@pytest.mark.parametrize("cut", [2, 3, 50, N - 1])
def test_nats_may_read_their_own_token_and_none_after_it(cut: int) -> None:
    edit = Edit(cut, N, "uniform")
    assert see(comparison(), edit, cut - 1, 1.0) is None  # entry cut - 1 is of token cut itself
    leak = see(comparison(), edit, cut - 2, 1e-12)
    assert leak is not None
    assert leak.worst == cut - 2
    assert leak.reach == 1


def test_noise_is_forgiven_and_nothing_more() -> None:
    noisy = comparison(Noise(1e-6, 2.0**-53))
    assert see(noisy, Edit(90, N, "uniform"), 20, 3e-6) is None
    assert see(noisy, Edit(90, N, "uniform"), 20, 5e-6) is not None


def test_moved_documents_are_forgiven_rounding() -> None:
    edit = Edit(90, N, "many documents")
    assert see(comparison(), edit, 20, 1e-6) is None
    assert see(comparison(), edit, 20, 1e-4) is not None


def test_all_cut_points_of_a_short_stream_are_planned() -> None:
    edits = planned_edits(N, 10_000, 1200, seed=0)
    assert {e.start for e in edits if e.stop == N} >= set(range(2, N))
    assert any(e.start == N - 1 for e in edits[:4])  # the far end comes first
    assert planned_edits(N, 50, 1200, seed=0) == edits[:50]


def uniform(tokens: np.ndarray) -> np.ndarray:
    return np.full(len(tokens) - 1, np.log(32))


@pytest.mark.parametrize("offset", [1, 2, 5, 40])
@pytest.mark.parametrize("where", [3, 77, 150])
def test_a_leak_of_1e_4_nats_at_one_position_is_found(offset: int, where: int) -> None:
    def leaks(tokens: np.ndarray) -> np.ndarray:
        nats = uniform(tokens)
        nats[where] += 1e-4 * (tokens[where + 1 + offset] % 2)
        return nats

    report = run_audit(leaks, vocab_size=32, tokens=TEXT, limits=Limits(positions=2))
    assert not report.probes["causality"].ok
    assert f"changed the nats of token {where + 1} by 0.0001:" in report.text()


def test_the_check_in_the_report_shows_the_leak_again() -> None:
    def score(tokens: np.ndarray) -> np.ndarray:
        return uniform(tokens) + 0.01 * (tokens[-1] % 2)

    report = run_audit(score, vocab_size=32, tokens=TEXT, limits=Limits(positions=2))
    lines = report.probes["causality"].findings[0].check.splitlines()
    names = {"score": score, "tokens": TEXT, "Edit": Edit}
    exec(lines[0], names)
    assert abs(eval(lines[1], names)) == pytest.approx(0.01)


def test_a_leak_hidden_in_noise_fails_determinism_instead() -> None:
    def noisy(tokens: np.ndarray) -> np.ndarray:
        tremble = np.random.default_rng().normal(0, 1e-3, len(tokens) - 1)
        return np.abs(uniform(tokens) + tremble + 1e-4 * (tokens[-1] % 2))

    report = run_audit(noisy, vocab_size=32, tokens=TEXT, limits=Limits(positions=2))
    assert report.probes["causality"].ok
    assert not report.probes["determinism"].ok
    assert any("cannot be seen" in note for note in report.notes)
