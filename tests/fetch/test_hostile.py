"""A hub, and a folder, that lie: nothing is written outside; each lie is refused in one line."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fairway.fetch.fetching import fetch
from fairway.fetch.hub import Listing, RemoteFile
from fairway.fetch.published import PUBLISHED, Published

BASE = "datasets/golf/fineweb_tiny"
GOOD_SUM = "0" * 64


def shard() -> bytes:
    header = np.zeros(256, dtype="<i4")
    header[:3] = 20240520, 1, 2
    return header.tobytes() + np.array([1, 2], dtype="<u2").tobytes()


class LyingHub:
    """Lists what it is told to, and sends shards to where it is told to."""

    def __init__(self, files: list[RemoteFile], revision: str = "a" * 40) -> None:
        self.listed = Listing(revision, tuple(files))
        self.arrives: Path | None = None

    def listing(self, repo: str) -> Listing:
        return self.listed

    def download(self, repo: str, revision: str, path: str, into: Path) -> Path:
        target = self.arrives or into / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            target.write_bytes(shard())
        return target


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    published = Published(
        repo="someone/golf", folder="fineweb_tiny", tokenizer="tiny.model", vocab_size=300
    )
    monkeypatch.setitem(PUBLISHED, "tiny", published)


def listed(**changes: Any) -> list[RemoteFile]:
    """A good listing but for its validation shard."""
    data = shard()
    good = {"path": f"{BASE}/fineweb_val_000000.bin", "size": len(data)}
    good |= {"sha256": hashlib.sha256(data).hexdigest()}
    return [RemoteFile("tiny.model", 10, GOOD_SUM), RemoteFile(**(good | changes))]


def refused(hub: LyingHub, out: Path, words: str) -> None:
    before = sorted(out.parent.rglob("*"))
    with pytest.raises(ValueError, match=words) as said:
        fetch("tiny", out, train_shards=0, hub=hub)
    assert "\n" not in str(said.value)
    assert len(str(said.value)) < 500
    left = {path for path in out.parent.rglob("*") if not path.is_relative_to(out)}
    assert left <= set(before)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"path": "../../fineweb_tiny/fineweb_val_000000.bin"}, "leads astray"),
        ({"path": "/etc/fineweb_tiny/fineweb_val_000000.bin"}, "leads astray"),
        ({"path": "a//fineweb_tiny/fineweb_val_000000.bin"}, "leads astray"),
        ({"path": "a\\..\\b/fineweb_tiny/fineweb_val_000000.bin"}, "leads astray"),
        ({"path": "a\n/fineweb_tiny/fineweb_val_000000.bin"}, "leads astray"),
        ({"path": f"{BASE}/fineweb_val_00000٣.bin"}, "lacks validation shards"),
        ({"path": f"{BASE}/fineweb_val_{'0' * 5000}.bin"}, "lacks validation shards"),
        ({"size": -1}, "a size of -1"),
        ({"size": 10**30}, "a size of 1000"),
        ({"size": float("nan")}, "a size of nan"),
        ({"size": "12"}, "a size of '12'"),
        ({"size": 1 << 49}, "make room"),
        ({"sha256": "../../x"}, "no sha256"),
        ({"sha256": "A" * 64}, "no sha256"),
    ],
)
def test_a_listing_that_lies_is_refused(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    refused(LyingHub(listed(**changes)), tmp_path / "data", words)


def test_a_tokenizer_from_outside_is_refused(tmp_path: Path) -> None:
    files = listed()
    files[0] = RemoteFile("../tiny.model", 10, GOOD_SUM)
    refused(LyingHub(files), tmp_path / "data", "leads astray")


def test_a_shard_in_two_places_is_refused(tmp_path: Path) -> None:
    files = [*listed(), *listed(path="other/fineweb_tiny/fineweb_val_000000.bin")[1:]]
    refused(LyingHub(files), tmp_path / "data", "fineweb_val_000000.bin twice")


@pytest.mark.parametrize("revision", ["../..", "", "a\nb", "x" * 200, "-rf"])
def test_a_revision_that_is_none_is_refused(tmp_path: Path, revision: str) -> None:
    refused(LyingHub(listed(), revision), tmp_path / "data", "names no revision")


def test_a_file_that_arrives_elsewhere_is_refused(tmp_path: Path) -> None:
    hub = LyingHub(listed())
    secret = tmp_path / "secret"
    secret.write_text("of somebody")
    hub.arrives = secret
    refused(hub, tmp_path / "data", "which is no file below")
    assert secret.read_text() == "of somebody"
    link = tmp_path / "data" / ".downloads" / "link"
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(secret)
    hub.arrives = link
    refused(hub, tmp_path / "data", "which is no file below")
    hub.arrives = link.parent
    refused(hub, tmp_path / "data", "which is no file below")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"3",
        b"\xff",
        b"[" * 100_000,
        json.dumps({"name": "tiny", "files": []}).encode(),
        json.dumps({"name": "tiny", "files": {"a": 3}}).encode(),
        *(
            json.dumps({"name": "tiny", "files": {name: entry}}).encode()
            for name, entry in (
                ("../x.bin", {"bytes": 1, "sha256": GOOD_SUM, "tokens": 1}),
                ("fineweb_val_000000.bin", {"bytes": 1, "sha256": GOOD_SUM}),
                ("fineweb_val_000000.bin", {"bytes": 1, "sha256": GOOD_SUM, "tokens": -1}),
                ("fineweb_val_000000.bin", {"bytes": 1e300, "sha256": GOOD_SUM, "tokens": 1}),
                ("fineweb_val_000000.bin", {"bytes": 1, "sha256": "x", "tokens": 1}),
                ("fineweb_val_000000.bin", {"bytes": 1028, "sha256": GOOD_SUM, "tokens": 3}),
                ("tokenizer.model", {"bytes": None, "sha256": GOOD_SUM}),
            )
        ),
    ],
)
def test_a_damaged_data_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "data.json").write_bytes(content)
    refused(LyingHub(listed()), tmp_path / "data", r"data\.json is damaged")
