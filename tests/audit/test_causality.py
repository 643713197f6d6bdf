"""Which edits are tried, and which leaks they show."""

import numpy as np
import pytest

from fairway.audit import Limits, run_audit
from fairway.audit.causality import planned_edits
from fairway.audit.stream import Edit, pseudo_text

N = 200
TEXT = pseudo_text(32, N)


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
