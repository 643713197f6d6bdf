"""A model file from the Hugging Face hub, by an address that fits in one word."""

import re
from pathlib import Path

HUB = "hf://"
HUB_PATH = "hf:/"  # the same once it was taken for a path
ADDRESS = re.compile(
    r"hf://?(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[\w.-]+))?(/(?P<file>[\w./-]+))?"
)
FILE = "model.fwy"  # what `fairway push` writes


def parse_address(address: str) -> tuple[str, str | None, str]:
    """Repository, revision and file of `hf://OWNER/NAME[@REVISION][/FILE]`.

    >>> parse_address("hf://ann/tiny@v2")
    ('ann/tiny', 'v2', 'model.fwy')
    """
    found = ADDRESS.fullmatch(address)
    if found is None or ".." in (found["file"] or "").split("/"):
        raise ValueError(f"{address!r} is no address of a model: hf://OWNER/NAME[@REVISION][/FILE]")
    return found["repo"], found["revision"], found["file"] or FILE


def hub_model(address: str) -> Path:
    """The file at an address, in the cache of the Hugging Face library; fetched if it is not there.

    What came is checked when it is loaded: a model file carries a checksum over all of it.

    Raises ValueError for what does not exist there, OSError when the hub cannot be reached.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    repo, revision, file = parse_address(address)
    try:
        return Path(hf_hub_download(repo, file, revision=revision))
    except LocalEntryNotFoundError as error:
        raise OSError(f"{address}: the hub cannot be reached, and no copy is kept here") from error
    except (RepositoryNotFoundError, RevisionNotFoundError, EntryNotFoundError) as error:
        missing = "repository" if isinstance(error, RepositoryNotFoundError) else "file or revision"
        raise ValueError(f"{address}: the hub has no such {missing}, or not for you") from error
    except HFValidationError as error:
        raise ValueError(f"{address}: {error}") from error
    except HfHubHTTPError as error:
        raise OSError(f"{address}: the hub answered with an error: {error!s:.200}") from error
