"""An evaluation that was scored, read back, so that this one is proved and no other like it.

What `fairway score --out FILE` writes tells all of it. A run's `result.json` leaves the settings to
the model file, which holds them.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from fairway.artifact.config_json import config_from_json, config_to_json
from fairway.artifact.loaded_model import LoadedModel
from fairway.evaluate.config import EvaluateConfig
from fairway.evaluate.timed import Evaluation
from fairway.proof.certificate import Certificate
from fairway.proof.decoder_limits import MOST_TOKENS, check_evaluation
from fairway.runtime.files import read_file
from fairway.runtime.limits import require_within
from fairway.runtime.strict_json import json_object, parse_json
from fairway.tokens.val_text import ValText

MOST_BYTES = 1 << 26  # of a file of results
EQUAL_BITS = 1e-3  # per byte: scores of one evaluation, on other threads or another device


@dataclass(frozen=True, kw_only=True)
class Scored:
    """A score, and all that its nats followed from.

    num_targets  of the text, from its start
    code_bytes   of its code, in settled arithmetic; None: the score is a sum of nats
    evaluate     None: as the model file says
    learned      the chunks that were learned from, as runs [first, stop); None: from all
    text_sha256  of all its token ids; None where it is not known
    scope        in words, which part of the text it is; "": all that was asked for
    """

    artifact_sha256: str
    text_sha256: str | None = None
    bits_per_byte: float
    num_targets: int
    code_bytes: int | None = None
    seed: int = 0
    evaluate: EvaluateConfig | None = None
    learned: tuple[tuple[int, int], ...] | None = None
    scope: str = ""

    def __post_init__(self) -> None:
        require_within(self, num_targets=(1, MOST_TOKENS), seed=(0, (1 << 63) - 1))
        if self.evaluate is not None:
            check_evaluation(self.evaluate)

    def text_of(self, text: ValText, where: Path) -> ValText:
        """What was scored of a text, from its start; ValueError where it was another's."""
        part = text.first(self.num_targets)
        other = self.text_sha256 is not None and tokens_sha256(part) != self.text_sha256
        if other or part.num_targets < self.num_targets:
            raise ValueError(
                f"{where} does not hold the {self.num_targets:,} tokens that were scored; name the "
                f"data folder of that text"
            )
        return replace(part, scope=self.scope)

    def require_model(self, loaded: LoadedModel) -> None:
        """ValueError where another model was scored."""
        if loaded.sha256 != self.artifact_sha256:
            raise ValueError(
                f"{loaded.path or 'the model'} is not the model that was scored: its sha256 is "
                f"{loaded.sha256[:12]}..., that of the scored one {self.artifact_sha256[:12]}..."
            )

    def differs(self, certificate: Certificate) -> str:
        """In words, where all of it was proved and another score came out; "" where not."""
        found, said = certificate.claimed_bits_per_byte, self.bits_per_byte
        if certificate.num_tokens < self.num_targets:
            return ""
        if self.code_bytes is not None and certificate.settled is not None:
            if (certificate.coded_bytes, found) == (self.code_bytes, said):
                return ""
            return (
                f"the score says {self.code_bytes:,} bytes of code and {said} bits per byte, the "
                f"same again {certificate.coded_bytes:,} and {found}"
            )
        if abs(found - said) < EQUAL_BITS:
            return ""
        return f"the score says {said:.5f} bits per byte, the same again {found:.5f}"


def tokens_sha256(text: ValText) -> str:
    """Over the ids as int64, little-endian."""
    return hashlib.sha256(text.tokens.long().numpy().astype("<i8").tobytes()).hexdigest()


def told(
    found: Evaluation, loaded: LoadedModel, text: ValText, evaluate: EvaluateConfig, seed: int
) -> dict[str, object]:
    """What is to be written down of an evaluation, beside its score, for `read_scored`."""
    return {
        "artifact_sha256": loaded.sha256,
        "text_sha256": tokens_sha256(text),
        "seed": seed,
        "learned": found.schedule,
        "scope": text.scope,
        "evaluate": config_to_json(evaluate),
    }


def read_scored(file: Path) -> Scored:
    """What `fairway score` or a run wrote; ValueError for any other file."""
    found = _read(file)
    if found is None:
        raise ValueError(f"{file} is of a run that was not scored")
    return found


def scored_beside(loaded: LoadedModel) -> Scored | None:
    """What the run that made a model found, if it lies beside the file and speaks of that file."""
    file = None if loaded.path is None else loaded.path.with_name("result.json")
    found = None if file is None or not file.is_file() else _read(file)
    return found if found is not None and found.artifact_sha256 == loaded.sha256 else None


def _read(file: Path) -> Scored | None:
    """None for a run that has no score yet."""
    try:
        data = json_object(parse_json(read_file(file, MOST_BYTES)), "its JSON")
        if "recipe" in data:
            if "score" not in data:
                return None
            data = _of_run(data)
        return config_from_json(Scored, _renamed(data))
    except ValueError as error:
        raise ValueError(
            f"{file} does not tell of an evaluation ({error}); take what `fairway score --out` "
            f"wrote, or the result.json of a run"
        ) from error


def _of_run(data: Mapping[str, object]) -> dict[str, object]:
    artifact, score = (json_object(data.get(name), name) for name in ("artifact", "score"))
    evaluate = json_object(data.get("evaluate", {}), "evaluate")
    return {
        "artifact_sha256": artifact.get("sha256"),
        "seed": data.get("seed"),
        "learned": evaluate.get("learned"),
        "scope": score.get("scope"),
        "tokens": score.get("tokens"),
        "bits_per_byte": score.get("bits_per_byte"),
        "code_bytes": score.get("code_bytes"),
    }


def _renamed(data: Mapping[str, object]) -> dict[str, object]:
    """Only what decides the nats, under the names of `Scored`; what is missing is left out."""
    names = {"tokens": "num_targets"}
    fields = {names.get(name, name): value for name, value in data.items() if value is not None}
    return {name: fields[name] for name in Scored.__dataclass_fields__ if name in fields}
