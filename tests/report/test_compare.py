"""Comparisons: the field's threshold, and the cases in which there is nothing to compare."""

import math
import random
from dataclasses import replace

import pytest

from fairway.report.compare import (
    THRESHOLD_NATS,
    Group,
    compare,
    group_grid,
    group_runs,
    run_grid,
)

from .run_results import NUM_TOKENS, PROOF, bare_result, score, scored_result


def groups(first: list[float], second: list[float], **other: int) -> list[Group]:
    """other  fields of every second score"""
    results = [scored_result(b, recipe="old", seed=i) for i, b in enumerate(first)]
    results += [
        replace(scored_result(recipe="new", seed=i), score=replace(score(b), **other))
        for i, b in enumerate(second)
    ]
    return group_runs(results)


def bits(nats_per_token: float) -> float:
    return nats_per_token * NUM_TOKENS / math.log(2) / 1_000_000


@pytest.mark.parametrize(
    ("gain", "beats"), [(0.02, True), (0.0055, False), (0.004, False), (-0.02, False)]
)
def test_only_a_gain_clearly_beyond_the_threshold_beats_it(gain: float, beats: bool) -> None:
    spread = [-0.0008, 0.0, 0.0009]
    old, new = groups([bits(3.7 + s) for s in spread], [bits(3.7 - gain + s * 0.7) for s in spread])
    found = compare(old, new)
    assert found.difference == pytest.approx(-gain, abs=1e-4)
    assert ("It beats" in found.sentence) == beats


def test_at_the_threshold_itself_the_odds_are_even() -> None:
    rng = random.Random(3)
    old_nats = [3.7 + rng.gauss(0, 0.001) for _ in range(40)]
    shift = sum(old_nats) / 40 - THRESHOLD_NATS
    around = [rng.gauss(0, 0.001) for _ in range(40)]
    centred = [shift + s - sum(around) / 40 for s in around]
    old, new = groups([bits(n) for n in old_nats], [bits(n) for n in centred])
    assert compare(old, new).p_beats == pytest.approx(0.5, abs=1e-6)


def test_different_text_is_not_compared() -> None:
    old, new = groups([1.5, 1.51], [1.4, 1.41], bytes=999_999)
    assert "not the same text (999,999, 1,000,000 bytes)" in compare(old, new).sentence
    assert compare(old, new).difference is None


def test_another_tokenizer_is_compared_in_bits_per_byte_only() -> None:
    old, new = groups([1.5, 1.51], [1.4, 1.41], tokens=300_000)
    assert "not the same tokenizer" in compare(old, new).sentence
    assert "-0.10000" in compare(old, new).sentence


def test_one_seed_is_no_test() -> None:
    old, new = groups([1.5, 1.51], [1.4])
    assert "two or more seeds" in compare(old, new).sentence
    assert group_grid([new]).rows[0][3] == "one seed"


def test_seeds_without_spread_are_no_test() -> None:
    old, new = groups([1.5, 1.5], [1.4, 1.4])
    assert "no spread" in compare(old, new).sentence


def test_mean_and_deviation_are_those_of_the_sample() -> None:
    (group,) = group_runs([scored_result(b, seed=i) for i, b in enumerate([1.0, 1.1, 1.2])])
    assert group_grid([group]).rows[0][:4] == ("looped", "0, 1, 2", "1.10000", "0.10000")


def test_a_run_without_score_is_listed_and_in_no_group() -> None:
    assert group_runs([bare_result()]) == []
    row = run_grid([("r", bare_result())]).rows[0]
    assert row == ("r", "looped", "1", "not run", "not run", "58", "not run", "not run")


def test_a_broken_proof_stands_out_in_the_list_of_runs() -> None:
    for wrong in (replace(PROOF, decoded_equal=False), replace(PROOF, holds=False)):
        assert "BROKEN" in run_grid([("r", replace(scored_result(), proof=wrong))]).rows[0]
