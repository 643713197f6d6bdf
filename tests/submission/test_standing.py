"""Whether a folder beats what stands, and every reason why no rule says so, by name."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from fairway.runs.database import RunsDatabase
from fairway.runs.record import RunRecord
from fairway.runs.rules import CHALLENGE, rule_set
from fairway.submission.case import Case, Finding
from fairway.submission.check import judge_significance
from fairway.submission.folder import seed_name
from fairway.submission.standing import known_runs, standing_groups

from ..runs.run_folders import DATA, VERSIONS, write_run

OLD = (3.0008, 3.0, 2.9991)
SEEDS = (1, 2, 3)


def runs(place: Path, nats: Sequence[float], **about: Any) -> list[Path]:
    return [write_run(place / str(i), each, seed=i, **about) for i, each in enumerate(nats, 1)]


@pytest.fixture
def standing(tmp_path: Path) -> list[Path]:
    return runs(tmp_path / "old", OLD)


def handed_in(place: Path, gain: float = 0.02, **about: Any) -> Path:
    """A folder as far as its runs are told apart: better by `gain` nats per token."""
    folder = place / "record"
    folder.mkdir()
    about = {"train__grad_clip": 0.1, **about}
    for seed, run in zip(SEEDS, runs(place / "new", [n - gain for n in OLD], **about), strict=True):
        for name in ("result.json", "run.json", "recipe.json"):
            shutil.copy(run / name, folder / seed_name(name, seed))
    return folder


def judged(folder: Path, against: Sequence[Path], database: Path | None = None) -> Finding:
    case = Case(folder=folder, rules=CHALLENGE, described={}, seeds=())
    return judge_significance(case, *standing_groups(folder, against, database))


@pytest.mark.parametrize(
    ("gain", "answer", "said"),
    [
        (0.02, "pass", "It beats the threshold of parameter-golf"),
        (0.0055, "fail", "It does not beat the threshold of parameter-golf"),
        (-0.02, "fail", "0.02000 nats per token"),
    ],
)
def test_only_a_gain_clearly_beyond_the_threshold_passes(
    gain: float, answer: str, said: str, standing: list[Path], tmp_path: Path
) -> None:
    found = judged(handed_in(tmp_path, gain), standing)
    assert found.answer == answer
    assert said in found.said


def test_nothing_to_beat_is_no_answer(tmp_path: Path) -> None:
    found = judged(handed_in(tmp_path), [])
    assert (found.answer, found.mend) == ("unknown", "name it with --against RUN...")


def test_too_few_seeds_give_no_verdict(standing: list[Path], tmp_path: Path) -> None:
    found = judged(handed_in(tmp_path), standing[:2])
    assert found.answer == "unknown"
    assert "has 2 of 3 seeds" in found.said


def test_a_seed_that_was_run_twice_is_no_further_seed(standing: list[Path], tmp_path: Path) -> None:
    again = write_run(tmp_path / "again", 2.9999, seed=2)
    found = judged(handed_in(tmp_path), [standing[0], standing[1], again])
    assert found.answer == "unknown"
    assert "seed 2 was run more than once" in found.said
    assert "has 2 of 3 seeds" in found.said


def test_a_folder_named_twice_is_one_run(standing: list[Path], tmp_path: Path) -> None:
    found = judged(handed_in(tmp_path), [*standing[:2], standing[1]])
    assert "has 2 of 3 seeds" in found.said


@pytest.mark.parametrize("chosen", ["old", "new"])
def test_the_best_of_more_runs_give_no_verdict(
    chosen: str, standing: list[Path], tmp_path: Path
) -> None:
    """Of either side: a weak choice to beat is as good as a lucky one of one's own."""
    folder, database = handed_in(tmp_path), tmp_path / "runs.sqlite"
    more: dict[str, Any] = {"train__grad_clip": 0.1} if chosen == "new" else {}
    seventh = write_run(tmp_path / "seventh", 3.1, seed=7, **more)
    known = [*standing, *(tmp_path / "new").iterdir(), seventh]
    RunsDatabase(database).add([RunRecord.of(run) for run in known])
    found = judged(folder, standing, database)
    assert found.answer == "unknown"
    assert "3 of the 4 runs that the database knows of" in found.said
    assert known_runs(folder, database) == (4 if chosen == "new" else 3)
    assert known_runs(folder, None) is None


@pytest.mark.parametrize(
    ("about", "said"),
    [
        ({"data": {**DATA, "val_000000.bin": "dd" * 32}}, "not the same validation text"),
        ({"versions": {**VERSIONS, "torch": "2.9.0"}}, "they were run by two versions"),
    ],
)
def test_what_may_not_be_compared_is_named(
    about: dict, said: str, standing: list[Path], tmp_path: Path
) -> None:
    found = judged(handed_in(tmp_path, **about), standing)
    assert found.answer == "unknown"
    assert said in found.said


def test_its_own_runs_are_nothing_to_beat(tmp_path: Path) -> None:
    folder = handed_in(tmp_path)
    found = judged(folder, sorted((tmp_path / "new").iterdir()))
    assert found.answer == "unknown"
    assert "they are seeds of one thing" in found.said


def test_runs_of_two_things_are_no_side(standing: list[Path], tmp_path: Path) -> None:
    other = write_run(tmp_path / "other", 3.0, seed=9, train__grad_clip=0.2)
    with pytest.raises(ValueError, match="--against names runs of 2 things"):
        judged(handed_in(tmp_path), [*standing, other])


def test_runs_without_a_score_are_no_side(tmp_path: Path) -> None:
    unfinished = write_run(tmp_path / "unfinished", None)
    with pytest.raises(ValueError, match="--against names runs of 0 things that have scores"):
        judged(handed_in(tmp_path), [unfinished])


def test_a_looser_rule_set_lets_pass_what_the_rules_do_not(
    standing: list[Path], tmp_path: Path
) -> None:
    folder = handed_in(tmp_path, 0.001)
    groups = standing_groups(folder, standing)
    answers = {
        name: judge_significance(
            Case(folder=folder, rules=rule_set(name), described={}, seeds=()), *groups
        ).answer
        for name in ("parameter-golf", "parameter-golf-list")
    }
    assert answers == {"parameter-golf": "fail", "parameter-golf-list": "pass"}
