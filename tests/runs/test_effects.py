"""The ledger: what one change did, at equal what, and how many things were tried."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ttest_1samp

from fairway.recipes.diff import ABSENT
from fairway.runs.effects import SCORE, Ledger, StageEffect, holm, judged, ledger
from fairway.runs.record import RunRecord

from .run_folders import BYTES_EACH, TOKENS_EACH, write_run

CLIP: dict[str, Any] = {"train__grad_clip": 0.1}
CAP: dict[str, Any] = {"model__logit_softcap": 20.0}
CLOCK: dict[str, Any] = {"train__steps": None, "train__seconds": 60.0}


class Runs:
    """Run folders with a number each."""

    def __init__(self, place: Path) -> None:
        self.place, self.records = place, []

    def add(self, nats: list[float], first_seed: int = 1, **about: Any) -> "Runs":
        """One run for each score, of seeds from `first_seed` on."""
        for seed, nats_per_token in enumerate(nats, start=first_seed):
            folder = self.place / str(len(self.records))
            self.records.append(RunRecord.of(write_run(folder, nats_per_token, seed=seed, **about)))
        return self

    @property
    def ledger(self) -> Ledger:
        return ledger(self.records)


def bits(nats_per_token: float) -> float:
    return nats_per_token * TOKENS_EACH / BYTES_EACH / np.log(2)


def test_a_change_is_measured_between_runs_of_one_seed(tmp_path: Path) -> None:
    runs = Runs(tmp_path).add([3.0, 3.1, 3.3, 9.9]).add([2.9, 3.02, 3.15], **CLIP)
    (effect,) = runs.ledger.effects
    assert (effect.path, effect.old, effect.new, effect.equal) == (
        "train.grad_clip", 0.3, 0.1, "steps",
    )  # fmt: skip
    assert effect.seeds == (1, 2, 3)
    found = effect.stages[SCORE]
    assert found.differences == pytest.approx([bits(-0.1), bits(-0.08), bits(-0.15)])
    assert found.mean == pytest.approx(bits(-0.11))
    student: Any = ttest_1samp(found.differences, 0.0)
    assert found.p == pytest.approx(student.pvalue)
    assert found.standard_error == pytest.approx(np.std(found.differences, ddof=1) / 3**0.5)
    assert set(effect.stages) == {"float", "quantized", "sliding", SCORE}


def test_the_usual_value_is_the_old_one_whatever_came_first(tmp_path: Path) -> None:
    runs = Runs(tmp_path).add([3.1], **CLIP).add([3.0]).add([2.9], **CAP)
    names = {effect.name for effect in runs.ledger.effects}
    assert names == {"train.grad_clip 0.3 → 0.1", "model.logit_softcap 30.0 → 20.0"}


def test_two_changes_at_once_are_no_effect_and_are_counted(tmp_path: Path) -> None:
    found = Runs(tmp_path).add([3.0]).add([2.9], **CAP, **CLIP).ledger
    assert found.effects == ()
    assert len(found.unmatched) == 2


def test_a_change_on_two_backgrounds_is_one_effect(tmp_path: Path) -> None:
    runs = Runs(tmp_path).add([3.0]).add([2.9], **CLIP).add([2.8], **CAP).add([2.6], **CAP, **CLIP)
    by_path = {effect.path: effect for effect in runs.ledger.effects}
    clip = by_path["train.grad_clip"]
    assert (clip.backgrounds, clip.seeds) == (2, (1, 1))
    assert clip.stages[SCORE].mean == pytest.approx(bits(-0.15))


def test_equal_steps_and_equal_seconds_are_two_rows(tmp_path: Path) -> None:
    runs = Runs(tmp_path).add([3.0]).add([2.9], **CLIP).add([2.0], **CLOCK)
    runs.add([2.1], **CLOCK, **CLIP)
    rows = {effect.equal: effect.stages[SCORE].mean for effect in runs.ledger.effects}
    assert rows == pytest.approx({"steps": bits(-0.1), "seconds": bits(0.1)})


def test_equal_seconds_on_another_machine_are_not_equal(tmp_path: Path) -> None:
    runs = Runs(tmp_path).add([2.0], **CLOCK).add([2.1], **CLOCK, **CLIP)
    other = runs.records.pop()
    runs.records.append(replace(other, result=replace(other.result, device="cuda")))
    assert runs.ledger.effects == ()
    assert runs.ledger.tried == 2


def test_a_change_of_length_is_at_equal_neither(tmp_path: Path) -> None:
    (effect,) = Runs(tmp_path).add([3.0]).add([2.9], train__steps=9).ledger.effects
    assert (effect.path, effect.equal) == ("train.steps", "neither")


def test_another_validation_text_is_no_change_of_a_recipe(tmp_path: Path) -> None:
    data = {"val_000000.bin": "ee" * 32}
    assert Runs(tmp_path).add([3.0]).add([2.9], data=data).ledger.effects == ()


def test_a_part_that_is_left_out_is_one_change(tmp_path: Path) -> None:
    (effect,) = Runs(tmp_path).add([3.0]).add([2.9], evaluate__mixture=None).ledger.effects
    assert (effect.path, effect.new) == ("evaluate.mixture", None)
    assert effect.old is not ABSENT


def test_what_was_tried_raises_the_p_values(tmp_path: Path) -> None:
    runs = Runs(tmp_path).add([3.0, 3.1]).add([2.9, 3.01], **CLIP)
    (alone,) = runs.ledger.effects
    assert alone.stages[SCORE].p_holm == alone.stages[SCORE].p
    for cap in range(5):
        runs.add([3.0 + cap / 100, 3.09 + cap / 100], model__logit_softcap=20.0 + cap)
    found = runs.ledger
    clip = next(e for e in found.effects if e.path == "train.grad_clip").stages[SCORE]
    assert found.tried == 6
    assert clip.p is not None
    assert clip.p_holm == pytest.approx(6 * clip.p)
    assert found.luck["steps"] is not None
    assert found.luck["steps"] > 0


def rescored(record: RunRecord, seed: int, bits_per_byte: float) -> RunRecord:
    """The same as if it had been run with another seed, and come out so."""
    assert record.result.score is not None
    score = replace(record.result.score, bits_per_byte=bits_per_byte)
    made_with = f"{record.group_id} {seed}"
    result = replace(record.result, seed=seed, made_with=made_with, stages={}, score=score)
    return replace(record, result=result)


def test_luck_is_what_chance_makes_of_the_best(tmp_path: Path) -> None:
    """Nothing has an effect: the best of eight looks about as good as the ledger says."""
    runs = Runs(tmp_path).add([3.0])
    for cap in range(8):
        runs.add([3.0], model__logit_softcap=20.0 + cap)
    rng, gains, luck = np.random.default_rng(5), [], []
    for _ in range(12):
        found = ledger(
            [
                rescored(record, seed, 1.5 + rng.normal(0, 0.01) * bool(i))
                for i, record in enumerate(runs.records)
                for seed in range(3)
            ]
        )
        gains.append(-min(effect.stages[SCORE].mean for effect in found.effects))
        luck.append(found.luck["steps"])
    assert np.median(gains) == pytest.approx(np.median(luck), rel=0.3)


@pytest.mark.parametrize("wild", [False, True], ids=["alike", "one goes wild"])
def test_as_many_changes_without_effect_are_called_clear_as_the_level_says(wild: bool) -> None:
    """400 sweeps of ten changes with three seeds each: p < 0.05 in about one of twenty."""
    rng, found = np.random.default_rng(7), []
    for _ in range(400):
        spreads = [0.01] * 9 + [1.0 if wild else 0.01]
        effects = [StageEffect(differences=tuple(rng.normal(0, s, 3))) for s in spreads]
        found += [effect.p for effect in judged(effects)[:9]]
    assert 0.02 < np.mean(np.array(found) < 0.05) < 0.06


def test_a_change_gone_wild_is_judged_by_its_own_spread_and_hides_no_other() -> None:
    rng = np.random.default_rng(3)
    effects = [StageEffect(differences=tuple(rng.normal(0, 0.001, 3))) for _ in range(9)]
    calm = [e.standard_error for e in judged(effects)]
    *others, wild = judged([*effects, StageEffect(differences=(0.5, 0.9, 1.4))])
    assert wild.standard_error == pytest.approx(np.std([0.5, 0.9, 1.4], ddof=1) / 3**0.5)
    assert [e.standard_error for e in others] == pytest.approx(calm, rel=0.3)


def test_one_seed_each_has_no_odds(tmp_path: Path) -> None:
    (effect,) = Runs(tmp_path).add([3.0]).add([2.9], **CLIP).ledger.effects
    assert (effect.stages[SCORE].p, effect.stages[SCORE].standard_error) == (None, None)


def test_a_ledger_is_plain_data(tmp_path: Path) -> None:
    found = Runs(tmp_path).add([3.0, 3.1]).add([2.9, 3.01], **CLIP).ledger
    data = json.loads(json.dumps(found.to_json()))
    assert data["tried"] == 1
    assert data["effects"][0]["stages"][SCORE]["p_holm"] is not None


@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_never_lowers_and_keeps_the_order(p_values: list[float]) -> None:
    corrected = holm(p_values)
    assert all(p <= c <= 1 for p, c in zip(p_values, corrected, strict=True))
    pairs = sorted(zip(p_values, corrected, strict=True))
    assert [c for _, c in pairs] == sorted(corrected)
