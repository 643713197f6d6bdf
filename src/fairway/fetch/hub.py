"""What a hub offers, and whether it may be believed: names, sizes and sums before any is used.

A hub is asked anew each time and at one revision: a list kept from an earlier visit hides what was
published since, which cost the field much time.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

SHA256 = re.compile(r"[0-9a-f]{64}")
MOST_FILES = 1_000_000  # of a repository
MOST_BYTES = 1 << 50  # of a file


@dataclass(frozen=True)
class RemoteFile:
    """A file on the hub; small files have no sha256 there."""

    path: str
    size: int
    sha256: str | None


@dataclass(frozen=True)
class Listing:
    """All files of a repository at one revision."""

    revision: str
    files: tuple[RemoteFile, ...]


class Hub(Protocol):
    """Where published files come from."""

    def listing(self, repo: str) -> Listing:
        """The repository as it is now. Raises OSError when it cannot be reached."""
        ...

    def download(self, repo: str, revision: str, path: str, into: Path) -> Path:
        """The file, somewhere below `into`; continues an earlier attempt. Raises OSError."""
        ...


class HuggingFaceHub:
    """The real hub, read without an account where the repository allows it.

    endpoint  address of a mirror; None is the library's own
    """

    def __init__(self, endpoint: str | None = None) -> None:
        self.endpoint = endpoint

    def listing(self, repo: str) -> Listing:
        from huggingface_hub import HfApi  # half a second that only a real download should pay

        try:
            info = HfApi(endpoint=self.endpoint).dataset_info(repo, files_metadata=True)
        except self._errors() as error:
            raise _unreachable(repo, error) from error
        files = tuple(
            RemoteFile(s.rfilename, s.size or 0, s.lfs.sha256 if s.lfs is not None else None)
            for s in info.siblings or ()
        )
        return Listing(info.sha or "main", files)

    def download(self, repo: str, revision: str, path: str, into: Path) -> Path:
        from huggingface_hub import hf_hub_download

        try:
            return Path(
                hf_hub_download(repo, path, repo_type="dataset", revision=revision, local_dir=into)
            )
        except self._errors() as error:
            raise _unreachable(repo, error) from error

    @staticmethod
    def _errors() -> tuple[type[BaseException], ...]:
        """Whatever the library's own error derives from is how its transport fails."""
        from huggingface_hub.errors import HfHubHTTPError

        return (OSError, *HfHubHTTPError.__bases__)


def _unreachable(repo: str, error: BaseException) -> OSError:
    return OSError(f"{type(error).__name__} while reading {repo}: {' '.join(str(error).split())}")


def check_listing(repo: str, listing: Listing) -> None:
    if re.fullmatch(r"[0-9A-Za-z][0-9A-Za-z._-]{0,99}", listing.revision) is None:
        raise ValueError(f"the hub names no revision of {repo} but {listing.revision!r:.60}")
    if len(listing.files) > MOST_FILES:
        raise ValueError(f"the hub lists {len(listing.files):,} files of {repo}, beyond belief")


def check_file(repo: str, file: RemoteFile) -> None:
    """ValueError where a file that is wanted has an unsafe path, or a size or sum that is none."""
    parts = file.path.split("/")
    if {"", ".", ".."} & set(parts) or "\\" in file.path or not file.path.isprintable():
        raise ValueError(f"the hub lists the path {file.path!r:.100} in {repo}, which leads astray")
    if type(file.size) is not int or not 0 <= file.size <= MOST_BYTES:
        raise ValueError(f"the hub gives {file.path:.100} in {repo} a size of {file.size!r:.40}")
    if file.sha256 is not None and SHA256.fullmatch(str(file.sha256)) is None:
        raise ValueError(f"the hub gives {file.path:.100} in {repo} no sha256: {file.sha256!r:.80}")
