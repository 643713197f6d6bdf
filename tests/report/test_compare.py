"""Tables of several runs."""

from dataclasses import replace
from pathlib import Path

import pytest

from fairway.report.compare import group_grid, run_grid
from fairway.result import RunResult
from fairway.runs.groups import Group
from fairway.runs.record import RunRecord

from .run_results import PROOF, bare_result, scored_result


def group(*results: RunResult, known: int = 0) -> Group:
    records = [
        RunRecord(folder=Path(f"r{i}"), result=result, settings={"seed": 1})
        for i, result in enumerate(results)
    ]
    return Group(results[0].recipe, tuple(records), max(known, len(results)))


def test_mean_and_deviation_are_those_of_the_sample() -> None:
    three = group(*(scored_result(bits, seed=i) for i, bits in enumerate([1.0, 1.1, 1.2])))
    assert group_grid([three]).rows[0][:4] == ("looped", "0, 1, 2", "1.10000", "0.10000")


def test_one_seed_has_no_deviation() -> None:
    assert group_grid([group(scored_result())]).rows[0][3] == "one seed"


def test_what_a_reader_must_know_stands_below() -> None:
    (note,) = group_grid([group(scored_result(), known=9)]).notes
    assert note.startswith("looped: 1 of the 9 runs")


def test_the_best_is_marked_on_one_text_only() -> None:
    good, bad = group(scored_result(1.4)), group(scored_result(1.5))
    assert group_grid([bad, good]).strong == 1
    other = group(replace(scored_result(1.3), data={"val_000000.bin": "ab"}))
    assert group_grid([bad, good, other]).strong is None


def test_a_run_without_score_is_listed() -> None:
    row = run_grid([("r", bare_result())]).rows[0]
    assert row == ("r", "looped", "1", "58", "not run", "not run", "not run", "not run")


@pytest.mark.parametrize("wrong", [{"decoded_equal": False}, {"holds": False}], ids=str)
def test_a_broken_proof_stands_out_in_the_list_of_runs(wrong: dict[str, bool]) -> None:
    assert (
        "BROKEN"
        in run_grid([("r", replace(scored_result(), proof=replace(PROOF, **wrong)))]).rows[0]
    )
