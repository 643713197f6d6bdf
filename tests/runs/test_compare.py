"""Comparisons: what is better, what is not shown, and what may not be compared."""

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import norm

from fairway.runs.compare import Comparison, compare
from fairway.runs.documents import DOCUMENTS
from fairway.runs.groups import Group, group_runs
from fairway.runs.record import RunRecord
from fairway.runs.rules import CHALLENGE, RuleSet

from .run_folders import BYTES_EACH, DATA, NUM_DOCUMENTS, TOKENS_EACH, write_run

SPREAD = (-0.0008, 0.0, 0.0009)


def side(place: Path, nats: list[float], **about: Any) -> list[RunRecord]:
    return [
        RunRecord.of(write_run(place / str(seed), nats_per_token, seed=seed, **about))
        for seed, nats_per_token in enumerate(nats, start=1)
    ]


def two(tmp_path: Path, old: list[float], new: list[float], **about: Any) -> tuple[Group, Group]:
    """about  of the second side"""
    about = {"train__grad_clip": 0.1, **about}
    one, other = group_runs([*side(tmp_path / "old", old), *side(tmp_path / "new", new, **about)])
    return one, other


def three(tmp_path: Path, gain: float, **about: Any) -> Comparison:
    old = [3.0 + s for s in SPREAD]
    return compare(*two(tmp_path, old, [n - gain for n in old], **about))


@pytest.mark.parametrize(
    ("gain", "verdict"), [(0.02, "better"), (0.0055, "not shown"), (-0.02, "not shown")]
)
def test_only_a_gain_clearly_beyond_the_threshold_is_better(
    tmp_path: Path, gain: float, verdict: str
) -> None:
    found = three(tmp_path, gain)
    assert found.seeds is not None
    assert found.seeds.difference == pytest.approx(-gain)
    assert found.verdict == verdict
    words = " ".join(found.sentences)
    assert ("It beats the threshold of parameter-golf" in words) == (verdict == "better")


def test_the_threshold_is_shown_in_bits_per_byte_of_this_tokenizer(tmp_path: Path) -> None:
    found = three(tmp_path, 0.02)
    expected = 0.005 / np.log(2) * TOKENS_EACH / BYTES_EACH
    assert found.threshold_bits == pytest.approx(expected)
    assert f"({expected:.5f} bits per byte)" in " ".join(found.sentences)


def test_at_the_threshold_itself_the_odds_are_even(tmp_path: Path) -> None:
    rng = random.Random(3)
    old = [3.0 + rng.gauss(0, 0.001) for _ in range(9)]
    shift = sum(old) / 9 - CHALLENGE.threshold_nats
    around = [rng.gauss(0, 0.001) for _ in range(9)]
    new = [shift + s - sum(around) / 9 for s in around]
    found = compare(*two(tmp_path, old, new))
    assert found.seeds is not None
    assert found.documents is not None
    assert found.seeds.p_beats == pytest.approx(0.5, abs=1e-6)
    assert found.documents.p_beats == pytest.approx(0.5, abs=1e-3)


def test_documents_need_far_fewer_seeds(tmp_path: Path) -> None:
    """One seed each: no test over seeds, and a gain of a tenth of the documents' own spread."""
    found = compare(*two(tmp_path, [3.0], [2.97]))
    assert found.seeds is None
    assert "two seeds or more" in " ".join(found.sentences)
    assert found.documents is not None
    assert found.documents.difference == pytest.approx(-0.03)
    assert found.documents.p_beats < 1e-6
    assert found.verdict == "none"


def test_the_paired_odds_are_those_of_the_mean_document(tmp_path: Path) -> None:
    """Against the normal distribution, to which Student's is close with so many documents."""
    found = compare(*two(tmp_path, [3.0], [2.9948])).documents
    assert found is not None
    assert found.standard_error == pytest.approx(0.003 * (2 / NUM_DOCUMENTS) ** 0.5, rel=0.3)
    z = (found.difference + 0.005) / found.standard_error
    assert found.p_beats == pytest.approx(norm.cdf(z), abs=0.02)
    assert 0.2 < found.p_beats < 0.5
    assert found.p_differs < 1e-6


def test_fewer_seeds_than_the_rules_ask_give_no_verdict(tmp_path: Path) -> None:
    groups = two(tmp_path, [3.0, 3.001], [2.9, 2.901])
    found = compare(*groups)
    assert found.verdict == "none"
    assert "has 2 of 3 seeds" in found.sentences[-1]
    assert compare(*groups, RuleSet(num_seeds=2)).verdict == "better"


def test_the_best_of_ten_give_no_verdict_and_are_counted(tmp_path: Path) -> None:
    records = side(tmp_path / "old", [3.0, 3.001, 3.002])
    chosen = side(tmp_path / "new", [2.9, 2.901, 2.902], train__grad_clip=0.1)
    base, other = group_runs([*records, *chosen], {chosen[0].group_id: 10})
    found = compare(base, other)
    assert found.verdict == "none"
    assert "3 of the 10 runs that the database knows of" in found.sentences[-1]


def test_a_seed_given_twice_gives_no_verdict(tmp_path: Path) -> None:
    records = side(tmp_path / "old", [3.0, 3.001, 3.002])
    records += side(tmp_path / "new", [2.9, 2.901, 2.902], train__grad_clip=0.1)
    again = RunRecord.of(write_run(tmp_path / "again", 2.8, seed=3, train__grad_clip=0.1))
    base, other = group_runs([*records, again])
    found = compare(base, other)
    assert found.verdict == "none"
    assert "seed 3 was run more than once" in found.sentences[-1]


def test_another_validation_text_is_refused(tmp_path: Path) -> None:
    found = three(tmp_path, 0.02, data={**DATA, "val_000000.bin": "00" * 32})
    assert found.refused
    assert (found.bits, found.seeds, found.documents) == (None, None, None)
    assert "not the same validation text" in found.sentences[0]


def resized(group: Group, **fields: int) -> Group:
    """With another number of bytes or tokens in its scores, and a text of its own."""
    records = []
    for record in group.records:
        assert record.result.score is not None
        result = replace(record.result, score=replace(record.result.score, **fields), data={})
        records.append(replace(record, result=result))
    return replace(group, records=tuple(records))


def test_a_text_of_another_size_is_refused_with_the_sizes(tmp_path: Path) -> None:
    old, new = two(tmp_path, [3.0, 3.1], [2.9, 2.91])
    assert "(7,200 and 7,000 bytes)" in compare(old, resized(new, bytes=7000)).refused


def test_another_tokenizer_is_compared_in_bits_per_byte_only(tmp_path: Path) -> None:
    old, new = two(tmp_path, [3.0, 3.001], [2.9, 2.901])
    found = compare(old, resized(new, tokens=1000))
    assert found.seeds is None
    assert "not the same tokenizer" in found.untested
    assert found.bits == pytest.approx(new.mean - old.mean)
    assert found.documents is not None  # bytes of each document agree


def test_seeds_without_spread_are_no_test(tmp_path: Path) -> None:
    old, new = two(tmp_path, [3.0, 3.0], [2.9, 2.9])
    base, other = (replace(g, records=(g.records[0], g.records[0])) for g in (old, new))
    assert "no spread" in compare(base, other).untested


def test_documents_of_another_run_are_an_error(tmp_path: Path) -> None:
    groups = two(tmp_path, [3.0], [2.9])
    (tmp_path / "new" / "1" / DOCUMENTS).write_bytes(
        (tmp_path / "old" / "1" / DOCUMENTS).read_bytes()
    )
    with pytest.raises(ValueError, match="not the file that the result of this run names"):
        compare(*groups)


def test_documents_that_are_gone_are_said(tmp_path: Path) -> None:
    groups = two(tmp_path, [3.0], [2.9])
    (tmp_path / "new" / "1" / DOCUMENTS).unlink()
    assert "is gone" in compare(*groups).unpaired


def test_a_comparison_is_plain_data(tmp_path: Path) -> None:
    data = json.loads(json.dumps(three(tmp_path, 0.02).to_json()))
    assert data["verdict"] == "better"
    assert data["rules"]["threshold_nats"] == 0.005
    assert data["documents"]["p_beats"] < 0.01


def test_a_group_is_not_compared_with_itself(tmp_path: Path) -> None:
    old, _ = two(tmp_path, [3.0, 3.1], [2.9, 2.91])
    assert compare(old, old).refused
