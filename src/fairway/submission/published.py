"""A record folder of the field's, judged as far as it says anything.

No schema is enforced there: fields and file names vary, and most folders hold no model, no hashes
and no proof. What cannot be known is said. Figures come from `submission.json` and, where they are
printed in the usual words, from the logs.
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fairway.runs.rules import RuleSet
from fairway.runtime.files import read_file
from fairway.submission.case import Finding

MOST_TEXT = 1 << 26  # bytes of a log, or of a script
SIZE = re.compile(r"[Tt]otal submission size[^:]*:\s*([\d,]+)\s*bytes")
SCORE = re.compile(r"val_bpb[:=]\s*([\d.]+)")
TRAINED = re.compile(r"train_time:\s*([\d.]+)\s*ms")
EVALUATED = re.compile(r"eval_time:\s*([\d.]+)\s*ms")
SEED = re.compile(r"\bseed[:=]?\s*(\d+)", re.IGNORECASE)
ROUNDED = 6e-5  # bits per byte: four digits are stated


def judge_published(folder: Path, rules: RuleSet) -> list[Finding]:
    """Every question that such a folder can answer, and those that it cannot."""
    described = _described(folder)
    logs = {
        path: _text(path) for path in sorted(folder.glob("*.log")) + sorted(folder.glob("*.txt"))
    }
    logs = {path: text for path, text in logs.items() if path.name != "requirements.txt"}
    return [
        *_files(folder, described, logs),
        *_bytes(folder, described, logs, rules),
        *_clocks(described, logs, rules),
        *_seeds(described, logs, rules),
        *_scores(described, logs),
        Finding("code", "unknown", "no one knows what source it was made of", "read it"),
        Finding("model", "unknown", "the folder holds none that it names by hash"),
        Finding("audit", "unknown", "not from files alone", "fairway audit FILE.py:FUNCTION"),
        Finding("proof", "unknown", "the field asks for none"),
        Finding("selection", "unknown", "nobody can tell how many runs there were"),
        Finding("significance", "unknown", "runs to compare with are not in the folder"),
    ]


def _files(folder: Path, described: Mapping, logs: Mapping) -> Iterator[Finding]:
    missing = [
        name
        for name, there in {
            "README.md": (folder / "README.md").is_file(),
            "submission.json": bool(described),
            "train_gpt.py": (folder / "train_gpt.py").is_file(),
            "a log": bool(logs),
        }.items()
        if not there
    ]
    if missing:
        yield Finding("files", "fail", f"missing: {', '.join(missing)}", "put them in")
    else:
        yield Finding("files", "pass", f"{len(logs)} logs, script, README, submission.json")


def _bytes(folder: Path, described: Mapping, logs: Mapping, rules: RuleSet) -> Iterator[Finding]:
    sizes = [_number(m) for text in logs.values() for m in SIZE.findall(text)[-1:]]
    for one in [described, *_by_seed(described).values()]:
        for name in ("bytes_total", "artifact_bytes", "artifact_bytes_max"):
            if isinstance(one.get(name), int):
                sizes.append(one[name])
    cap = rules.cap_bytes
    if not sizes or cap is None:
        yield Finding("bytes", "unknown", "no size is stated")
    elif max(sizes) > cap:
        said = f"{max(sizes):,} bytes, {max(sizes) - cap:,} over {cap:,}"
        yield Finding("bytes", "fail", said, "a smaller model, or packed code")
    else:
        yield Finding("bytes", "pass", f"{max(sizes):,} of {cap:,} bytes, as stated")
    script = folder / "train_gpt.py"
    if script.is_file():
        size = script.stat().st_size
        said = f"{size:,} bytes as it lies there; how it was counted is the folder's word"
        yield Finding("bytes of code", "unknown", said)


def _clocks(described: Mapping, logs: Mapping, rules: RuleSet) -> Iterator[Finding]:
    stated: dict[str, list[float]] = {"training": [], "evaluation": []}
    for one in [described, *_by_seed(described).values()]:
        for name, kind, unit in (
            ("train_time_ms", "training", 1000.0),
            ("train_time_s", "training", 1.0),
            ("wallclock_seconds", "training", 1.0),
            ("eval_time_s", "evaluation", 1.0),
            ("eval_time_seconds", "evaluation", 1.0),
            ("ttt_time_ms", "evaluation", 1000.0),
        ):
            if isinstance(one.get(name), int | float):
                stated[kind].append(one[name] / unit)
    for text in logs.values():
        stated["training"] += [float(m) / 1000 for m in TRAINED.findall(text)[-1:]]
        stated["evaluation"] += [float(m) / 1000 for m in EVALUATED.findall(text)[-1:]]
    limits = {"training": rules.train_seconds, "evaluation": rules.eval_seconds}
    for kind, seconds in stated.items():
        limit = limits[kind]
        if not seconds or limit is None:
            yield Finding(f"clock of {kind}", "unknown", "no time is stated")
        elif max(seconds) > limit + rules.tolerance_seconds:
            said = f"{max(seconds):.2f} s of {limit:g} s"
            yield Finding(f"clock of {kind}", "fail", said, "run it again within its time")
        else:
            yield Finding(
                f"clock of {kind}", "pass", f"{max(seconds):.2f} s of {limit:g} s, stated"
            )


def _seeds(described: Mapping, logs: Mapping, rules: RuleSet) -> Iterator[Finding]:
    listed = {str(seed) for seed in _by_seed(described)}
    listed |= {str(seed) for seed in described.get("seeds") or () if isinstance(seed, int | str)}
    printed = {m for text in logs.values() for m in SEED.findall(text)[:1]}
    number = len(listed or printed)
    if not number:
        yield Finding("number of seeds", "unknown", "no seed is stated")
    elif number < rules.num_seeds:
        said = f"{number} seeds, and {rules.name} asks for {rules.num_seeds}"
        yield Finding("number of seeds", "fail", said, "run more")
    elif listed and printed - listed:
        foreign = ", ".join(sorted(printed - listed))
        yield Finding("number of seeds", "fail", f"foreign: logs of seed {foreign}", "its own logs")
    else:
        yield Finding("number of seeds", "pass", ", ".join(sorted(listed or printed)))


def _scores(described: Mapping, logs: Mapping) -> Iterator[Finding]:
    printed = [float(m) for text in logs.values() for m in SCORE.findall(text)]
    for seed, one in _by_seed(described).items():
        claimed = one.get("val_bpb")
        if not isinstance(claimed, int | float):
            continue
        if not printed:
            yield Finding(f"score, seed {seed}", "unknown", f"{claimed}, and no log prints one")
        elif min(abs(claimed - p) for p in printed) > ROUNDED:
            said = f"{claimed} is printed in no log"
            yield Finding(f"score, seed {seed}", "fail", said, "hand in the log of this run")
        else:
            yield Finding(f"score, seed {seed}", "pass", f"{claimed}, as a log prints")
    claimed = described.get("val_bpb", described.get("mean_bpb"))
    each = [one["val_bpb"] for one in _by_seed(described).values() if "val_bpb" in one]
    if not isinstance(claimed, int | float):
        yield Finding("mean", "unknown", "no score is stated")
    elif not each:
        near = any(abs(claimed - p) <= ROUNDED for p in printed)
        said = f"{claimed}, {'as a log prints' if near else 'and nothing to compare it with'}"
        yield Finding("mean", "pass" if near else "unknown", said)
    elif abs(claimed - sum(each) / len(each)) > ROUNDED:
        said = f"{claimed}, and the seeds' mean is {sum(each) / len(each):.5f}"
        yield Finding("mean", "fail", said, "state the mean, not the best")
    else:
        yield Finding("mean", "pass", f"{claimed}, the mean of {len(each)} seeds")


def _described(folder: Path) -> Mapping[str, Any]:
    for path in [folder / "submission.json", *sorted(folder.glob("submission*.json"))]:
        if path.is_file():
            try:
                found = json.loads(_text(path))
            except ValueError:
                continue
            if isinstance(found, dict):
                return found
    return {}


def _by_seed(described: Mapping) -> dict[str, Mapping[str, Any]]:
    held = described.get("seed_results")
    held = held if isinstance(held, Mapping) else {}
    return {str(seed): one for seed, one in held.items() if isinstance(one, Mapping)}


def _text(path: Path) -> str:
    return read_file(path, MOST_TEXT).decode("utf-8", "replace")


def _number(text: str) -> int:
    return int(text.replace(",", ""))
