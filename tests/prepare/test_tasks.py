"""Tasks that have only a disk in common: any order, any number, the bytes of one process."""

import json
from pathlib import Path

import pytest

from fairway.prepare.corpus import HeldOut
from fairway.prepare.tasks import (
    TOKENIZER,
    Job,
    encode_unit,
    finish,
    kept_hash,
    make_tokenizer,
    read_units,
    shard_path,
    write_shards,
)

TEXTS = [
    "\0".join(f"{f} green bottles, {i * f} more. " * (1 + i % 5) for i in range(30))
    for f in range(4)
]


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """Four files, all encoded."""
    source, work = tmp_path / "source", tmp_path / "work"
    source.mkdir()
    work.mkdir()
    for number, text in enumerate(TEXTS):
        (source / f"{number}.txt").write_text(text)
    held_out = HeldOut([source], (), 0.2, 0)
    job = Job(
        out=tmp_path / "data",
        work=work,
        held_out=held_out,
        described=("source",),
        vocab_size=290,
        tokens_per_shard=500,
    )
    job.open()
    make_tokenizer(job)
    for unit in job.units("train"):
        encode_unit(job, unit, (document for _, document in read_units(job, [unit])), set())
    return job


def test_shards_do_not_depend_on_who_writes_which(job: Job) -> None:
    shards = job.shards()
    assert len(shards) > 4
    write_shards(job, shards)
    whole = {shard: shard_path(job, *shard).read_bytes() for shard in shards}
    for shard in shards:
        shard_path(job, *shard).unlink()
    for rank in (2, 0, 1):
        write_shards(job, job.shards(rank, 3))
    assert {shard: shard_path(job, *shard).read_bytes() for shard in shards} == whole


def test_what_is_there_is_not_written_again(job: Job) -> None:
    write_shards(job, job.shards())
    first = shard_path(job, "train", 0)
    before = first.stat().st_mtime_ns
    write_shards(job, job.shards())
    assert first.stat().st_mtime_ns == before


@pytest.mark.parametrize("suffix", ["tokens", "json"])
def test_a_part_that_was_cut_or_lost_is_to_be_encoded_again(job: Job, suffix: str) -> None:
    unit = job.units("train")[2]
    assert job.is_done("train", 2, 4)
    file = job.part("train", unit.number, suffix)
    file.write_bytes(file.read_bytes()[:-2])
    assert not job.is_encoded(unit)
    assert not job.is_done("train", 2, 4)
    with pytest.raises(ValueError, match=r"2\.txt is not encoded.*repeat the command"):
        job.all_parts("train")


def test_a_damaged_shard_is_found_at_the_end_and_written_again(job: Job) -> None:
    write_shards(job, job.shards())
    path = shard_path(job, "train", 1)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert kept_hash(path) is None
    with pytest.raises(ValueError, match=r"train_000001\.bin is missing or damaged"):
        finish(job)
    assert not job.out.exists()
    assert not job.is_done("shards", job.shards().index(("train", 1)), len(job.shards()))
    write_shards(job, job.shards())
    assert path.read_bytes() == whole
    finish(job)
    assert (job.out / path.name).read_bytes() == whole


def test_the_folder_is_put_in_its_place_whole(job: Job) -> None:
    write_shards(job, job.shards())
    shards = job.shards()
    manifest = finish(job)
    assert manifest == json.loads((job.out / "data.json").read_bytes())
    names = {f"{split}_{number:06d}.bin" for split, number in shards}
    assert {file.name for file in job.out.iterdir()} == names | {"data.json", TOKENIZER}
    assert not job.parts.exists()
