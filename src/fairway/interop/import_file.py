"""A published checkpoint or artifact as a file of ours, with nothing rounded on the way."""

from collections.abc import Mapping
from pathlib import Path

from fairway.artifact.config_json import config_to_json
from fairway.artifact.container import pack
from fairway.interop.challenge import import_artifact
from fairway.interop.settings import published_evaluation
from fairway.model.blank import num_params
from fairway.runtime.files import atomic_write
from fairway.runtime.strict_json import JsonObject
from fairway.tokens.tokenizer import load_tokenizer


def import_file(
    source: Path, lineage: str, env: Mapping[str, str], tokenizer: Path, out: Path
) -> JsonObject:
    """Write the model of `source` to `out` in float32; returns what was found.

    Scored, proved and audited as it is; `fairway pack` rounds it anew. Evaluated as the script
    would under `env`, except that nothing is learned before it is scored.

    tokenizer  the SentencePiece file the model was trained with
    """
    model = import_artifact(source, lineage, env)
    pieces = load_tokenizer(tokenizer)
    if pieces.vocab_size > model.config.vocab_size:
        raise ValueError(
            f"{tokenizer} has {pieces.vocab_size} pieces and the model knows "
            f"{model.config.vocab_size}; name the tokenizer it was trained with"
        )
    evaluation = published_evaluation(lineage, env).resolved(model.config.train_context)
    config = {
        "recipe": f"{source.name} ({lineage})",
        "model": config_to_json(model.config),
        "evaluate": config_to_json(evaluation),
        "loops_active": model.loops_active,
    }
    packed = pack(config, pieces.to_bytes(), model.shipped_state_dict())
    atomic_write(out, packed)
    return {
        "model": str(out),
        "params": num_params(model.config),
        "bytes": len(packed),
        "evaluate": config["evaluate"],
    }
