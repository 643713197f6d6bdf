"""Groups: seeds of one thing together, named by what they are not."""

from dataclasses import replace
from pathlib import Path

from fairway.runs.groups import Group, group_runs
from fairway.runs.record import RunRecord

from .run_folders import DATA, write_run


def groups(*folders: Path) -> list[Group]:
    return group_runs([RunRecord.of(folder) for folder in folders])


def test_runs_of_one_name_and_another_depth_are_two_groups_named_by_it(tmp_path: Path) -> None:
    found = groups(
        write_run(tmp_path / "a", seed=1),
        write_run(tmp_path / "b", seed=1, train__steps=12),
        write_run(tmp_path / "c", seed=2),
    )
    assert [group.name for group in found] == ["pocket_smoke", "pocket_smoke, train.steps 12"]
    assert [group.seeds for group in found] == [(1, 2), (1,)]


def test_texts_and_versions_are_named_too(tmp_path: Path) -> None:
    other = {**DATA, "val_000000.bin": "00" * 32}
    found = groups(
        write_run(tmp_path / "a"),
        write_run(tmp_path / "b", data=other),
        write_run(tmp_path / "c", versions={"fairway": "9.9", "torch": "2.13.0"}),
        write_run(tmp_path / "d", data={**DATA, "train_000000.bin": "00" * 32}),
    )
    names = [group.name for group in found]
    assert "validation text" in names[1]
    assert "version.fairway 9.9" in names[2]
    assert "training text" in names[3]
    assert "validation text" not in names[3]


def test_many_differences_are_counted(tmp_path: Path) -> None:
    changes = {"train__steps": 9, "budget__cap_bytes": 5, "model__logit_softcap": 20.0}
    _, other = groups(
        write_run(tmp_path / "a"),
        write_run(tmp_path / "b", **changes, train__grad_clip=0.1, evaluate__stride=8),
    )
    assert other.name.endswith("2 more differences")
    assert len(other.differences) == 5


def test_a_copied_folder_is_one_run_and_a_repeated_seed_is_named(tmp_path: Path) -> None:
    (group,) = groups(
        write_run(tmp_path / "a", seconds=1.0),
        write_run(tmp_path / "copy", seconds=1.0),
        write_run(tmp_path / "b", seconds=2.0),
    )
    assert group.seeds == (1, 1)
    assert group.repeated == (1,)
    assert "seed 1 was run more than once" in group.reservations[0]


def test_a_choice_among_more_runs_is_named_with_their_number(tmp_path: Path) -> None:
    records = [RunRecord.of(write_run(tmp_path / f"s{i}", seed=i)) for i in range(2)]
    (group,) = group_runs(records, {records[0].group_id: 10})
    assert "2 of the 10 runs that the database knows of" in group.reservations[0]


def test_a_run_without_a_score_is_in_no_group(tmp_path: Path) -> None:
    assert groups(write_run(tmp_path / "a", nats_per_token=None)) == []


def test_runs_that_do_not_say_what_they_were_are_alone(tmp_path: Path) -> None:
    folders = [write_run(tmp_path / name, seconds=i) for i, name in enumerate(("a", "b"))]
    for folder in folders:
        (folder / "run.json").unlink()
        (folder / "recipe.json").unlink()
    found = groups(*folders)
    assert len(found) == 2
    assert "does not say what was run" in found[0].reservations[0]


def test_another_depth_under_the_same_clock_is_named(tmp_path: Path) -> None:
    clock = {"train__seconds": 60.0, "train__steps": None}
    a, b = (RunRecord.of(write_run(tmp_path / f"{s}", seed=s, **clock)) for s in (1, 2))
    fewer = replace(b.result, train=replace(b.result.train, steps=70))
    (group,) = group_runs([a, replace(b, result=fewer)])
    assert "trained for 70 to 100 steps" in group.reservations[0]
