"""Published checkpoints and artifacts of the challenge, as models of ours: the way in.

The parts: variables in `environment.py`, tensors in `published_weights.py`, compressed files in
`ptz.py`, settings of a run in `settings.py`, its training in `train_steps.py`, its evaluation
in `score_documents.py`.
"""

from collections.abc import Mapping
from pathlib import Path

from fairway.interop.ptz import read_ptz, read_weights
from fairway.interop.published_weights import load_checkpoint
from fairway.interop.score_documents import score_documents
from fairway.interop.settings import training_settings
from fairway.interop.train_steps import train_steps
from fairway.model.gpt import GPT

__all__ = [
    "import_artifact",
    "load_checkpoint",
    "read_ptz",
    "score_documents",
    "train_steps",
    "training_settings",
]


def import_artifact(path: str | Path, lineage: str, env: Mapping[str, str]) -> GPT:
    """The model in a published file: .pt or .safetensors checkpoint, or .ptz artifact.

    lineage, env  as for `load_checkpoint`, whose errors it raises, and those of the file's reader
    """
    return load_checkpoint(lineage, dict(env), read_weights(path))
