"""An exported model, and the model file itself, onto the Hugging Face hub."""

import tempfile
from pathlib import Path
from shutil import copyfile

from fairway.artifact.loaded_model import LoadedModel
from fairway.fetch.model_file import FILE, parse_address
from fairway.hugging_face.export import export
from fairway.runtime.limits import one_line


def push(loaded: LoadedModel, address: str, *, private: bool = False) -> str:
    """Put the folder that `export` writes, with the model file in it, at `hf://OWNER/NAME`.

    Returns where the commit can be seen. One commit: the repository changes as a whole or not at
    all. The account is the library's own (`hf auth login`, or HF_TOKEN).

    Raises ValueError for what the hub refuses, OSError when it cannot be reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError

    repo, revision, _ = parse_address(address)
    if loaded.path is None:
        raise ValueError("a model without a file cannot be pushed; load it from its path")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "model"
        export(loaded, out)
        copyfile(loaded.path, out / FILE)
        try:
            api = HfApi()
            api.create_repo(repo, private=private, exist_ok=True)
            done = api.upload_folder(
                repo_id=repo, folder_path=out, revision=revision, commit_message=loaded.sha256
            )
        except (HFValidationError, LocalTokenNotFoundError) as error:
            raise ValueError(f"{address}: {one_line(error)}") from error
        except HfHubHTTPError as error:
            status = getattr(error.response, "status_code", 0)
            kind = ValueError if 400 <= status < 500 else OSError
            raise kind(f"{address}: the hub says {status}: {one_line(error)}") from error
    return str(done.commit_url)
