"""Whatever interrupts `prepare`, and wherever: the same command goes on, to the same bytes."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fairway.prepare import partial as folder_module
from fairway.prepare import prepare
from fairway.prepare.encoding import encode_document, encode_in_order
from fairway.runtime.files import locked
from fairway.runtime.progress import Progress, silent
from fairway.tokens import shards
from fairway.tokens.shards import DataFolder
from fairway.tokens.tokenizer import ByteTokenizer

DOCUMENTS = [f"document {i}: " + "the quick brown fox. " * (3 + i % 17) for i in range(200)]
Files = dict[str, bytes]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    file = tmp_path / "text.txt"
    file.write_text("\0".join(DOCUMENTS))
    return file


def make(
    source: Path,
    name: str,
    *,
    seed: int = 0,
    val: Path | None = None,
    workers: int = 1,
    overwrite: bool = False,
    progress: Progress = silent,
) -> Files:
    """The files of the folder `name` beside the source."""
    out = source.parent / name
    prepare(
        out,
        [source],
        vocab_size=300,
        val_fraction=None if val else 0.2,
        val=[val] if val else (),
        seed=seed,
        tokens_per_shard=3000,
        workers=workers,
        overwrite=overwrite,
        progress=progress,
    )
    return {file.name: file.read_bytes() for file in out.iterdir()}


def killed(work: Callable[[], object], moment: int) -> bool:
    """Whether `work`, in a process of its own, was killed at its n-th write to disk."""
    child = os.fork()
    if child == 0:
        left, real = moment, os.fsync

        def fsync(handle: int) -> None:
            nonlocal left
            left -= 1
            if left <= 0:
                os.kill(os.getpid(), signal.SIGKILL)
            real(handle)

        os.fsync = fsync
        work()
        os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("own_val", [False, True])
def test_killed_at_every_write_the_same_command_goes_on_to_the_same_bytes(
    source: Path, own_val: bool
) -> None:
    val = source.parent / "val.txt"
    val.write_text("\0".join(DOCUMENTS[:20]))
    chosen = val if own_val else None
    whole = make(source, "whole", val=chosen)
    moment, kills = 1, 0
    while killed(lambda: make(source, "again", val=chosen), moment):
        kills += 1
        moment += 3  # it goes on after each, so that it needs fewer writes
        assert not (source.parent / "again").exists()
        if kills % 4 == 0:
            break
    assert kills >= 3
    assert make(source, "again", val=chosen) == whole
    for first in range(1, 60, 11):
        name = f"killed_{first}"
        if not killed(lambda name=name: make(source, name, val=chosen), first):
            break
        assert make(source, name, val=chosen) == whole


def test_finished_shards_are_not_encoded_again(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = make(source, "whole")
    encoded = 0

    def counted(*args: object) -> object:
        nonlocal encoded
        for one in encode_in_order(*args):  # type: ignore[arg-type]
            encoded += 1
            yield one

    monkeypatch.setattr(folder_module, "encode_in_order", counted)
    killed(lambda: make(source, "again"), 25)
    journal = json.loads((source.parent / ".again.partial" / "journal.json").read_text())
    kept = sum(len(json.dumps(shard)) > 0 for shard in journal["shards"])
    assert kept >= 3
    assert make(source, "again") == whole
    assert 0 < encoded < len(DOCUMENTS) - 2 * kept


def test_a_full_disk_is_one_line_and_keeps_what_is_finished(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = make(source, "whole")
    real, left = shards.write_shard, 4

    def full(path: Path, tokens: object) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(path, tokens)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(shards, "write_shard", full)
        with pytest.raises(OSError, match=r"No space left .*; 4 finished shards are kept") as said:
            make(source, "again")
    assert "\n" not in str(said.value)
    assert make(source, "again") == whole


def test_other_arguments_and_other_sources_are_refused_and_overwrite_begins_anew(
    source: Path,
) -> None:
    killed(lambda: make(source, "again"), 25)
    partial = source.parent / ".again.partial"
    before = {file.name: file.read_bytes() for file in partial.glob("*.bin")}
    with pytest.raises(ValueError, match=r"begun otherwise \(seed: 0, now 1\).*--overwrite"):
        make(source, "again", seed=1)
    assert before == {file.name: file.read_bytes() for file in partial.glob("*.bin")}
    source.write_text("\0".join(reversed(DOCUMENTS)))
    with pytest.raises(ValueError, match=r"begun otherwise \(sources\)"):
        make(source, "again")
    assert make(source, "again", overwrite=True) == make(source, "whole")


def test_text_that_changed_behind_its_times_and_sizes_is_refused(source: Path) -> None:
    killed(lambda: make(source, "again"), 25)
    times = source.stat()
    source.write_text("\0".join(DOCUMENTS).replace("quick", "quack"))
    os.utime(source, ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(ValueError, match="the sources changed"):
        make(source, "again")


def test_a_finished_folder_is_replaced_with_overwrite_only(source: Path) -> None:
    first = make(source, "data")
    with pytest.raises(ValueError, match=r"exists already.*--overwrite"):
        make(source, "data", seed=1)
    killed(lambda: make(source, "data", seed=1, overwrite=True), 25)
    assert (source.parent / "data" / "tokenizer.model").read_bytes() == first["tokenizer.model"]
    assert make(source, "data", seed=1, overwrite=True) == make(source, "other", seed=1)
    assert sorted(file.name for file in source.parent.iterdir()) == ["data", "other", "text.txt"]


def test_what_is_no_data_folder_is_never_overwritten(source: Path) -> None:
    (source.parent / "home").mkdir()
    (source.parent / "home" / "letter").write_text("dear")
    with pytest.raises(ValueError, match="is no data folder"):
        make(source, "home", overwrite=True)
    with pytest.raises(ValueError, match="the folder to write"):
        prepare(source.parent, [source], vocab_size=300, val_fraction=0.2, overwrite=True)


def test_damaged_shards_and_what_follows_them_are_made_again(source: Path) -> None:
    whole = make(source, "whole")
    for name in ("val_000000.bin", "train_000002.bin", "tokenizer.model"):
        again = f"without {name}"
        killed(lambda again=again: make(source, again), 31)
        file = source.parent / f".{again}.partial" / name
        file.write_bytes(file.read_bytes()[:-1] + b"?")
        assert make(source, again) == whole


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "[" * 100_000,
        '{"identity": {}, "tokenizer": 3, "shards": [], "finished": {}}',
        '{"identity": {}, "tokenizer": null, "shards": [{"name": "../../x"}], "finished": {}}',
    ],
)
def test_a_damaged_journal_is_refused(source: Path, text: str) -> None:
    killed(lambda: make(source, "again"), 25)
    (source.parent / ".again.partial" / "journal.json").write_text(text)
    with pytest.raises(ValueError, match=r"journal.json is damaged .*--overwrite"):
        make(source, "again")
    assert make(source, "again", overwrite=True)


def test_two_at_once_into_one_folder_are_told_apart(source: Path) -> None:
    partial = source.parent / ".data.partial"
    partial.mkdir()
    with (
        locked(partial / "lock", "another `fairway prepare`"),
        pytest.raises(ValueError, match="in use by another `fairway prepare`"),
    ):
        make(source, "data")


def test_the_bytes_do_not_depend_on_the_number_of_processes(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_module, "SMALL_BYTES", 0)
    assert make(source, "two", workers=2) == make(source, "one", workers=1)


def test_a_long_document_is_encoded_in_parts_and_stays_exact(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("fairway.prepare.encoding.PART_BYTES", 7)
    for text in ("äöü" * 20, "one\ntwo\nthree" * 9, "\n" * 30, "x" * 7, "", "ab\n" * 7):
        tokens = encode_document(ByteTokenizer(), text.encode())
        assert tokens[0] == ByteTokenizer.bos_id
        assert ByteTokenizer().decode(tokens).decode() == text


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_command_leaves_no_process_and_loses_nothing(
    tmp_path: Path, number: int
) -> None:
    source = tmp_path / "text.txt"
    source.write_text("\0".join(f"{i} " + text * 40 for i, text in enumerate(DOCUMENTS)) * 9)
    command = [sys.executable, "-m", "fairway", "prepare", str(tmp_path / "data"), str(source)]
    command += ["--tokenizer", "bytes", "--val-fraction", "0.3", "--workers", "2"]
    child = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    partial = tmp_path / ".data.partial" / "journal.json"
    while not partial.exists() and child.poll() is None:
        time.sleep(0.01)
    child.send_signal(number)
    said = child.communicate(timeout=30)[1]
    assert child.returncode == (-9 if number == signal.SIGKILL else 128 + number), said
    # Of a process that was about to start when kill -9 came, something may be heard.
    assert "Traceback" not in said or number == signal.SIGKILL
    deadline = time.monotonic() + 10
    while _group_lives(child.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _group_lives(child.pid)
    assert subprocess.run(command, capture_output=True).returncode == 0
    DataFolder(tmp_path / "data").verify()


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
