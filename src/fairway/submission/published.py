"""A record folder of the field's, judged as far as it says anything.

No schema is enforced there: fields and file names vary, and most folders hold no model, no hashes
and no proof. What is stated in `submission.json` is held against what the logs print
(`field_logs.py`) and against the rules; what cannot be known is said.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, TypeGuard

from fairway.runs.rules import RuleSet
from fairway.runtime.files import read_file
from fairway.runtime.limits import one_line
from fairway.runtime.strict_json import parse_json
from fairway.submission.case import Finding
from fairway.submission.field_logs import MOST_TEXT, FieldLog, read_logs

ROUNDED = 6e-5  # bits per byte: four digits are stated
SIZES = ("artifact_bytes", "artifact_bytes_max", "bytes_total")
CLOCKS = {  # field: the clock, and how many there are in a second
    "train_time_ms": ("training", 1000.0),
    "train_time_s": ("training", 1.0),
    "train_time_seconds": ("training", 1.0),
    "wallclock_seconds": ("training", 1.0),
    "eval_time_s": ("evaluation", 1.0),
    "eval_time_seconds": ("evaluation", 1.0),
    "ttt_eval_time_s": ("evaluation", 1.0),
    "ttt_time_ms": ("evaluation", 1000.0),
}
# Scored tokens of the published text, all of it, in the tokenizers whose records' logs print them.
WHOLE_TEXTS = {
    63_779_840: "1,024 pieces of the first export",
    62_021_632: "1,024 pieces",
    45_508_608: "4,096 pieces",
    40_540_160: "8,192 pieces",
    40_540_802: "8,192 pieces",
    47_851_520: "8,192 pieces and CaseOps",
    47_853_342: "8,192 pieces and CaseOps",
}


@dataclass(frozen=True)
class Folder:
    """described  `submission.json`; empty where there is none, and `problem` says what is wrong
    by_seed    what that says of each seed
    """

    path: Path
    rules: RuleSet
    described: Mapping[str, Any]
    problem: str
    logs: tuple[FieldLog, ...]

    @property
    def by_seed(self) -> dict[str, Mapping[str, Any]]:
        for name in ("seed_results", "seeds"):
            held = self.described.get(name)
            if isinstance(held, Mapping):
                return {str(seed): one for seed, one in held.items() if isinstance(one, Mapping)}
        return {}

    @property
    def seeds(self) -> set[str]:
        """That it lists."""
        listed = self.described.get("seeds")
        listed = listed if isinstance(listed, list) else []
        return set(self.by_seed) | {str(one) for one in listed if isinstance(one, int | str)}

    def logs_of(self, seed: str) -> list[FieldLog]:
        """Those that print this seed; where none does, those that print no seed at all."""
        own = [log for log in self.logs if log.seed == seed]
        return own or [log for log in self.logs if log.seed is None]


def judge_published(path: Path, rules: RuleSet) -> list[Finding]:
    """Every question that such a folder can answer, and those that it cannot."""
    described, problem = _described(path)
    folder = Folder(path, rules, described, problem, read_logs(path))
    return [
        *_files(folder),
        *_code(folder),
        *_bytes(folder),
        *_clocks(folder),
        *_seeds(folder),
        *_steps(folder),
        *_parameters(folder),
        *_text(folder),
        *_scores(folder),
        _mean(folder),
        Finding("model", "unknown", "the folder holds none that it names by hash"),
        Finding("audit", "unknown", "not from files alone", "fairway audit FILE.py:FUNCTION"),
        Finding("proof", "unknown", "the field asks for none"),
        Finding("selection", "unknown", "nobody can tell how many runs there were"),
        Finding("significance", "unknown", "runs to compare with are not in the folder"),
    ]


def _files(folder: Folder) -> Iterator[Finding]:
    there = {
        "README.md": (folder.path / "README.md").is_file(),
        "submission.json": bool(folder.described) or bool(folder.problem),
        "train_gpt.py": (folder.path / "train_gpt.py").is_file(),
        "a log": bool(folder.logs),
    }
    missing = [name for name, found in there.items() if not found]
    if folder.problem:
        yield Finding("files", "fail", folder.problem, "write JSON that every reader reads alike")
    if missing:
        yield Finding("files", "fail", f"missing: {', '.join(missing)}", "put them in")
    elif not folder.problem:
        logs = "1 log" if len(folder.logs) == 1 else f"{len(folder.logs)} logs"
        yield Finding("files", "pass", f"{logs}, script, README, submission.json")


def _code(folder: Folder) -> Iterator[Finding]:
    printed = sorted({log.code_bytes for log in folder.logs if log.code_bytes is not None})
    script = folder.path / "train_gpt.py"
    lies = f"{script.stat().st_size:,} bytes as it lies there" if script.is_file() else "no script"
    more = sum(f.stat().st_size for f in folder.path.glob("*.py") if f != script and f.is_file())
    lies += f", {more:,} more of Python beside it" if more else ""
    if len(printed) > 1:
        sizes = " and ".join(f"{size:,}" for size in printed)
        said = f"its logs are of scripts of {sizes} bytes, and one is handed in"
        yield Finding("code", "fail", said, "run every seed with the script that is handed in")
        return
    counted = f", {printed[0]:,} as its logs print" if printed else ""
    said = f"{lies}{counted}; what source it was made of, and how it is counted, is its own word"
    yield Finding("code", "unknown", said, "read it")


def _bytes(folder: Folder) -> Iterator[Finding]:
    stated = [one[name] for one in _all_stated(folder) for name in SIZES if _is_count(one, name)]
    printed = [log.total_bytes for log in folder.logs if log.total_bytes is not None]
    cap, largest = folder.rules.cap_bytes, max([*stated, *printed], default=None)
    if largest is None or cap is None:
        yield Finding("bytes", "unknown", "no size is stated")
    elif largest > cap:
        where = "as a log prints" if largest in printed else "as stated"
        said = f"{largest:,} bytes, {largest - cap:,} over {cap:,}, {where}"
        yield Finding("bytes", "fail", said, "a smaller model, or packed code")
    else:
        yield Finding("bytes", "pass", f"{largest:,} of {cap:,} bytes, as stated")
    for seed, one in folder.by_seed.items():
        sizes = {log.total_bytes for log in folder.logs_of(seed) if log.total_bytes is not None}
        told = {one[name] for name in SIZES if _is_count(one, name)}
        if sizes and told - sizes:
            odd, shown = next(iter(told - sizes)), ", ".join(f"{size:,}" for size in sizes)
            said = f"{odd:,} bytes are stated, and its log prints {shown}"
            yield Finding(f"bytes, seed {seed}", "fail", said, "state what the run prints")


def _clocks(folder: Folder) -> Iterator[Finding]:
    spent: dict[str, list[float]] = {"training": [], "evaluation": []}
    for one in _all_stated(folder):
        for name, (kind, unit) in CLOCKS.items():
            if _is_number(one.get(name)):
                spent[kind].append(one[name] / unit)
    for log in folder.logs:
        spent["training"] += [] if log.train_seconds is None else [log.train_seconds]
        spent["evaluation"] += [] if log.eval_seconds is None else [log.eval_seconds]
    rules = folder.rules
    limits = {"training": rules.train_seconds, "evaluation": rules.eval_seconds}
    for kind, seconds in spent.items():
        limit, place = limits[kind], f"clock of {kind}"
        if not seconds or limit is None:
            yield Finding(place, "unknown", "no time is stated")
        elif max(seconds) > limit + rules.tolerance_seconds:
            said = f"{max(seconds):.2f} s of {limit:g} s"
            yield Finding(place, "fail", said, "run it again within its time")
        else:
            said = f"{max(seconds):.2f} s of {limit:g} s, as stated; what ran outside is not known"
            yield Finding(place, "pass", said)


def _seeds(folder: Folder) -> Iterator[Finding]:
    place, listed = "number of seeds", folder.seeds
    printed = {log.seed for log in folder.logs if log.seed is not None}
    number, rules = len(listed or printed), folder.rules
    misnamed = [log for log in folder.logs if log.named not in (None, log.seed)]
    unlogged = listed - printed if printed else set()
    if misnamed:
        log = misnamed[0]
        said = f"foreign: {log.name} prints seed {log.seed}"
        yield Finding(place, "fail", said, "its own logs")
    elif not number:
        yield Finding(place, "unknown", "no seed is stated")
    elif number < rules.num_seeds:
        several = "1 seed" if number == 1 else f"{number} seeds"
        said = f"{several}, and {rules.name} asks for {rules.num_seeds}"
        yield Finding(place, "fail", said, "run more")
    elif listed and printed - listed:
        foreign = ", ".join(sorted(printed - listed))
        yield Finding(place, "fail", f"foreign: logs of seed {foreign}", "its own logs")
    elif unlogged or len(folder.logs) < number:
        which = f" of seed {', '.join(sorted(unlogged))}" if unlogged else ""
        said = f"{number} seeds, and no log{which}: {len(folder.logs)} in all"
        yield Finding(place, "fail", said, "hand in a log for each seed")
    else:
        yield Finding(place, "pass", ", ".join(sorted(listed or printed)))


def _steps(folder: Folder) -> Iterator[Finding]:
    """Where they are stated and printed: one more tie between a claim and its log."""
    wrong, compared = [], 0
    for seed, one in folder.by_seed.items():
        printed = {log.steps for log in folder.logs_of(seed) if log.steps is not None}
        if printed and _is_count(one, "steps"):
            compared += 1
            if one["steps"] not in printed:
                shown = ", ".join(f"{steps:,}" for steps in sorted(printed))
                wrong.append(f"seed {seed}: {one['steps']:,} stated, {shown} printed")
    mean, each = folder.described.get("train_steps_mean"), [log.steps for log in folder.logs]
    if _is_number(mean) and each and None not in each:
        compared += 1
        found = fmean(steps for steps in each if steps is not None)
        if abs(found - mean) > 1:
            wrong.append(f"{mean:,.0f} on average stated, {found:,.0f} printed")
    if wrong:
        yield Finding("steps", "fail", "; ".join(wrong), "hand in the logs of these very runs")
    elif compared:
        yield Finding("steps", "pass", "as stated")


def _parameters(folder: Folder) -> Iterator[Finding]:
    stated = folder.described.get("model_params")
    printed = {log.params for log in folder.logs if log.params is not None}
    if _is_number(stated) and printed and stated not in printed:
        shown = ", ".join(f"{params:,}" for params in sorted(printed))
        said = f"{stated:,} are stated, and {shown} printed: the logs are of another model"
        yield Finding("parameters", "fail", said, "hand in the logs of these very runs")


def _text(folder: Folder) -> Iterator[Finding]:
    printed = sorted({log.val_tokens for log in folder.logs if log.val_tokens is not None})
    odd = [tokens for tokens in printed if tokens not in WHOLE_TEXTS]
    if not printed:
        yield Finding("text", "unknown", "no log prints how much was scored")
    elif odd:
        said = f"{odd[0]:,} tokens: a part of the text, or a tokenizer that is not known here"
        yield Finding("text", "unknown", said, "count its bytes: fairway bytes")
    else:
        said = f"{printed[0]:,} tokens: all of it, in {WHOLE_TEXTS[printed[0]]}"
        yield Finding("text", "pass", said)


def _scores(folder: Folder) -> Iterator[Finding]:
    for seed, one in folder.by_seed.items():
        claimed, place, logs = one.get("val_bpb"), f"score, seed {seed}", folder.logs_of(seed)
        if not _is_number(claimed):
            continue
        if not any(log.scores for log in logs):
            yield Finding(place, "unknown", f"{claimed}, and no log of it prints one")
        elif not any(_near(claimed, score) for log in logs for score in log.scores):
            said = f"{claimed} is printed in no log of it"
            yield Finding(place, "fail", said, "hand in the log of this run")
        else:
            ends = [log.scores[-1] for log in logs if log.scores]
            last = "" if any(_near(claimed, end) for end in ends) else f"; it ends with {ends[-1]}"
            yield Finding(place, "pass", f"{claimed}, as its log prints{last}")


def _mean(folder: Folder) -> Finding:
    claimed = folder.described.get("val_bpb", folder.described.get("mean_bpb"))
    each = [one["val_bpb"] for one in folder.by_seed.values() if _is_number(one.get("val_bpb"))]
    if not _is_number(claimed):
        return Finding("mean", "unknown", "no score is stated")
    if each:
        if _near(claimed, fmean(each)):
            return Finding("mean", "pass", f"{claimed}, the mean of {len(each)} seeds")
        said = f"{claimed}, and the seeds' mean is {fmean(each):.5f}"
        return Finding("mean", "fail", said, "state the mean, not the best")
    ends = [log.scores[-1] for log in folder.logs if log.scores]
    if not ends:
        return Finding("mean", "unknown", f"{claimed}, and nothing to compare it with")
    if _near(claimed, fmean(ends)):
        return Finding("mean", "pass", f"{claimed}, as its logs end on average")
    if any(_near(claimed, score) for log in folder.logs for score in log.scores):
        return Finding("mean", "pass", f"{claimed}, as a log prints")
    said = f"{claimed} is printed in no log, and they end with {fmean(ends):.5f} on average"
    return Finding("mean", "fail", said, "hand in the logs of these very runs")


def _described(path: Path) -> tuple[Mapping[str, Any], str]:
    """What `submission.json` says, and what is wrong with it."""
    for file in [path / "submission.json", *sorted(path.glob("submission*.json"))]:
        if file.is_file():
            try:
                found = parse_json(read_file(file, MOST_TEXT))
            except ValueError as error:
                return {}, f"{file.name}: {one_line(error, 100)}"
            if isinstance(found, Mapping):
                return found, ""
            return {}, f"{file.name} holds no JSON object"
    return {}, ""


def _all_stated(folder: Folder) -> list[Mapping[str, Any]]:
    return [folder.described, *folder.by_seed.values()]


def _near(claimed: float, printed: float) -> bool:
    return abs(claimed - printed) <= ROUNDED


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(held: Mapping[str, Any], name: str) -> bool:
    return isinstance(held.get(name), int) and not isinstance(held[name], bool)
