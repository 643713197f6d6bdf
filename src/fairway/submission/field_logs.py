"""What the logs of the field's scripts print, where they use the usual words.

The words are those of the challenge's first script, which most others kept. A log may begin with
the whole source of its script, so that a word is looked for as it is printed, not as it is written
in code; of what is printed again and again the last counts.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from fairway.runtime.files import read_file

MOST_TEXT = 1 << 26  # bytes of a log
TOTAL = re.compile(r"^Total submission size[^:\n]*:\s*(\d[\d,]{0,20})\s*bytes", re.M | re.I)
CODE = re.compile(r"^Code size[^:\n]*:\s*(\d[\d,]{0,20})\s*bytes", re.M)
SCORE = re.compile(r"\bval_bpb[:=]\s*(\d{1,9}\.\d{1,20})")
TRAINED = re.compile(r"\btrain_time:\s*(\d{1,15}(?:\.\d{1,9})?)\s*ms")
EVALUATED = re.compile(r"\beval_time:\s*(\d{1,15}(?:\.\d{1,9})?)\s*ms")
STEPS = re.compile(r"^stopping_early\b[^\n]*\bstep:\s*(\d{1,15})/", re.M)
SEED = re.compile(r"^\s*seed[:=]\s*(\d{1,20})\s*$", re.M | re.I)
TOKENS = re.compile(r"^(?:val_tokens:|val_loader:[^\n]*\btokens:)\s*(\d{1,15})", re.M)
PARAMS = re.compile(r"^model_params:\s*(\d{1,15})", re.M)
NAMED = re.compile(r"seed[_-]?(\d{1,20})", re.I)
NO_LOGS = ("requirements.txt",)


@dataclass(frozen=True)
class FieldLog:
    """One log; what it does not print is None, or empty.

    seed    that it prints, else the one in its name
    named   the seed in its name
    scores  in bits per byte, in order
    total_bytes, code_bytes  of what is handed in, and of the code in it
    """

    name: str
    seed: str | None
    named: str | None
    scores: tuple[float, ...]
    total_bytes: int | None
    code_bytes: int | None
    train_seconds: float | None
    eval_seconds: float | None
    steps: int | None
    val_tokens: int | None
    params: int | None

    @classmethod
    def of(cls, path: Path) -> "FieldLog":
        text = read_file(path, MOST_TEXT).decode("utf-8", "replace")
        named, printed = NAMED.search(path.stem), SEED.search(text)
        seed = None if named is None else named[1]
        trained, evaluated = _last(TRAINED, text), _last(EVALUATED, text)
        return cls(
            name=path.name,
            seed=seed if printed is None else printed[1],
            named=seed,
            scores=tuple(float(found) for found in SCORE.findall(text)),
            total_bytes=_count(_last(TOTAL, text)),
            code_bytes=_count(_last(CODE, text)),
            train_seconds=None if trained is None else float(trained) / 1000,
            eval_seconds=None if evaluated is None else float(evaluated) / 1000,
            steps=_count(_last(STEPS, text)),
            val_tokens=_count(_last(TOKENS, text)),
            params=_count(_last(PARAMS, text)),
        )


def read_logs(folder: Path) -> tuple[FieldLog, ...]:
    """Every log of a folder, by name. Raises ValueError for one that is longer than any log."""
    files = sorted([*folder.glob("*.log"), *folder.glob("*.txt")])
    return tuple(FieldLog.of(f) for f in files if f.is_file() and f.name not in NO_LOGS)


def _last(pattern: re.Pattern[str], text: str) -> str | None:
    found = pattern.findall(text)
    return found[-1] if found else None


def _count(text: str | None) -> int | None:
    return None if text is None else int(text.replace(",", ""))
