"""Whether what was handed in is whole and of one piece: files, code, bytes, clocks, seeds, logs."""

import ast
import math
import re
from collections.abc import Iterator

from fairway.artifact.container import read_config
from fairway.runtime.files import file_sha256, read_file
from fairway.runtime.identity import difference, json_sha256
from fairway.runtime.limits import one_line
from fairway.runtime.setup import LOG
from fairway.runtime.version import VERSION
from fairway.submission.case import Case, Finding, of_seed
from fairway.submission.folder import (
    COPIED,
    README,
    REQUIREMENTS,
    SUBMISSION,
    requirements,
    seed_name,
    settled_in,
)
from fairway.submission.script import MOST_SOURCE, SCRIPT, make_script, unpack_script


def judge_files(case: Case) -> Iterator[Finding]:
    allowed = {SCRIPT, SUBMISSION, README, REQUIREMENTS}
    allowed |= {seed_name(name, seed.number) for name in COPIED for seed in case.seeds}
    there = sorted(case.folder.iterdir())
    needed = {SCRIPT, README, REQUIREMENTS}
    wrong = {
        "foreign": ([p.name for p in there if p.name not in allowed], "take them out"),
        "links": ([p.name for p in there if p.is_symlink()], "put the files themselves in"),
        "missing": (sorted(needed - {p.name for p in there if p.is_file()}), "put them in"),
    }
    for what, (names, mend) in wrong.items():
        if names:
            yield Finding("files", "fail", f"{what}: {', '.join(names)}", mend)
    if not any(names for names, _ in wrong.values()):
        yield Finding("files", "pass", f"{len(case.seeds)} seeds with script, README, versions")


def judge_code(case: Case) -> Iterator[Finding]:
    mend = "hand in the script of the runs, train_gpt.py of their folders"
    told = {str(seed.made.get("versions", {}).get("fairway")) for seed in case.seeds}  # type: ignore[union-attr]
    try:
        script = read_file(case.folder / SCRIPT, MOST_SOURCE)
        source = unpack_script(script)
        rebuilt = make_script(settled_in(case.folder, case.seeds[0].number))
    except (ValueError, KeyError, TypeError) as error:
        yield Finding("code", "fail", f"{SCRIPT}: {one_line(error)}", mend)
        return
    if script == rebuilt or _same_program(source, unpack_script(rebuilt)):
        yield Finding("code", "pass", f"{len(script):,} bytes, as fairway {VERSION} makes them")
    elif told != {VERSION}:
        made = ", ".join(sorted(told))
        said = f"made by fairway {made}, and this is {VERSION}"
        yield Finding("code", "unknown", said, f"pip install fairway=={made}")
    else:
        yield Finding("code", "fail", f"not equal to source: {SCRIPT} was changed", mend)
    listed = _packages(
        read_file(case.folder / REQUIREMENTS, MOST_SOURCE).decode("utf-8", "replace")
    )
    imported = _packages(requirements(source))
    if listed != imported:
        odd = ", ".join(sorted(listed ^ imported))
        said = f"{REQUIREMENTS} and the imports of {SCRIPT} differ in {odd}"
        yield Finding("packages", "fail", said, "write the folder again: fairway submit")
    else:
        yield Finding("packages", "pass", ", ".join(sorted(listed)))


def _same_program(one: str, other: str) -> bool:
    """Versions of Python write the same program in different ways.

    Parsed as bytes, as Python runs them: a comment may name another encoding than UTF-8, in which
    other comments are statements.
    """
    try:
        return ast.dump(ast.parse(one.encode())) == ast.dump(ast.parse(other.encode()))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False


def _packages(text: str) -> set[str]:
    """What lines of requirements name; a line that does more is no name, and stays whole."""
    lines = {line.strip() for line in text.splitlines() if line.strip()}
    pinned = re.compile(r"([A-Za-z0-9_-]+)(==[0-9A-Za-z.]+)?")
    return {found[1] if (found := pinned.fullmatch(line)) else line for line in lines}


def judge_models(case: Case) -> Iterator[Finding]:
    for seed in case.seeds:
        artifact, place = seed.result.artifact, f"model, seed {seed.number}"
        if artifact is None or file_sha256(seed.model) != artifact.sha256:
            said = f"swapped: {seed.model.name} is not the file that was scored"
            yield Finding(place, "fail", said, "hand in the model of this run")
            continue
        try:
            header = read_config(seed.model.read_bytes())
        except ValueError as error:
            yield Finding(place, "fail", one_line(error), "hand in the model of this run")
            continue
        odd = difference(header.get("model"), seed.recipe.get("model"))
        if odd is not None:
            yield Finding(place, "fail", f"not of this recipe ({odd})", "hand in its own model")
        else:
            yield Finding(place, "pass", f"{artifact.sha256[:12]}, the file that was scored")


def judge_bytes(case: Case) -> Iterator[Finding]:
    for seed in case.seeds:
        total = case.code_bytes + seed.model.stat().st_size
        own = seed.result.artifact.cap_bytes if seed.result.artifact else None
        caps = [cap for cap in (case.rules.cap_bytes, own) if cap is not None]
        cap, place = min(caps, default=None), f"bytes, seed {seed.number}"
        claimed = seed.result.artifact.bytes_total if seed.result.artifact else None
        if cap is not None and total > cap:
            said = f"{total:,} bytes of code and model, {total - cap:,} over {cap:,}"
            yield Finding(place, "fail", said, "pack it again: fairway pack --cap-bytes")
        elif claimed != total:
            said = f"{total:,} bytes, and {claimed:,} are claimed" if claimed else "no claim"
            yield Finding(place, "fail", said, "hand in script and model of this very run")
        else:
            yield Finding(place, "pass", f"{total:,} of {cap or math.inf:,} bytes")


def judge_clocks(case: Case) -> Iterator[Finding]:
    rules = case.rules
    for seed in case.seeds:
        train, evaluate = seed.result.train, seed.result.evaluate
        spent = {
            "training": (train.seconds, rules.train_seconds, train.budget_seconds),
            "evaluation": (
                evaluate.seconds if evaluate else None,
                rules.eval_seconds,
                evaluate.budget_seconds if evaluate else None,
            ),
        }
        for name, (seconds, rule, own) in spent.items():
            place = f"clock of {name}, seed {seed.number}"
            limits = [limit for limit in (rule, own) if limit is not None]
            if seconds is None:
                yield Finding(place, "unknown", "no time was written down")
            elif limits and seconds > min(limits) + rules.tolerance_seconds:
                said = f"{seconds:.2f} s of {min(limits):g} s"
                yield Finding(place, "fail", said, "run it again within its time")
            else:
                limit = f"{min(limits):g}" if limits else "any"
                yield Finding(place, "pass", f"{seconds:.2f} s of {limit} s")


def judge_seeds(case: Case) -> Iterator[Finding]:
    mend = "hand in runs that differ in their seed alone"
    first = case.seeds[0]
    listed = list(case.described.get("seeds") or ())  # type: ignore[call-overload]
    models = [seed.result.artifact and seed.result.artifact.sha256 for seed in case.seeds]
    for seed, model in zip(case.seeds, models, strict=True):
        held = {"result": seed.result.seed, "recipe": seed.recipe.get("seed")}
        wrong = {name: number for name, number in held.items() if number != seed.number}
        without = {k: v for k, v in seed.recipe.items() if k != "seed"}
        odd = difference(without, {k: v for k, v in first.recipe.items() if k != "seed"})
        other = difference(seed.made.get("data"), first.made.get("data"))
        versions = difference(seed.made.get("versions"), first.made.get("versions"))
        place = f"seed {seed.number}"
        if wrong:
            name, number = next(iter(wrong.items()))
            yield Finding(place, "fail", f"foreign: its {name} has seed {number}", mend)
        elif odd or other or versions:
            what = f"another {'recipe' if odd else 'text' if other else 'version'}"
            said = f"foreign: {what} than seed {first.number} ({odd or other or versions})"
            yield Finding(place, "fail", said, mend)
        elif seed.result.made_with != json_sha256(seed.made):
            yield Finding(place, "fail", "foreign: its result is of another run", mend)
        elif models.count(model) > 1:
            yield Finding(place, "fail", "foreign: its model is that of another seed, too", mend)
        else:
            yield Finding(place, "pass", "one recipe, text and version")
    distinct = len(set(listed))
    if len(listed) != distinct or distinct < case.rules.num_seeds:
        said = f"{distinct} seeds, and {case.rules.name} asks for {case.rules.num_seeds}"
        said = "a seed is listed twice" if len(listed) != distinct else said
        yield Finding("number of seeds", "fail", said, "run more: fairway seeds")
    else:
        yield Finding("number of seeds", "pass", f"{distinct}")


def judge_selection(case: Case) -> Iterator[Finding]:
    number, told = len(case.seeds), case.described.get("runs_known")
    known = max((n for n in (case.known, told) if isinstance(n, int)), default=number)
    if known > number:
        said = f"{number} of {known} runs: they may be the best ones"
        yield Finding("selection", "fail", said, "hand in all runs, or the first seeds of a list")
    elif case.known is None:
        said = "no database of runs: nobody can tell how many there were"
        yield Finding("selection", "unknown", said, "name it with --runs FILE")
    elif case.known < number:
        said = f"the database knows of {case.known} of these {number} runs"
        yield Finding("selection", "unknown", said, "name the one in which they were recorded")
    else:
        yield Finding("selection", "pass", f"all {known} runs that the database knows of")


def judge_logs(case: Case) -> Iterator[Finding]:
    for seed in case.seeds:
        result, told, place = seed.result, seed.told, f"log, seed {seed.number}"
        mend = "hand in the train.log of this very run"
        wanted = {
            "made_with": result.made_with,
            "seed": seed.number,
            "model_sha256": result.artifact and result.artifact.sha256,
            "train_seconds": result.train.seconds,
            "nats": result.score and result.score.nats,
            "tokens": result.score and result.score.tokens,
            "code_bytes": result.score and result.score.code_bytes,
        }
        wrong = [name for name, value in wanted.items() if told.get(name) != value]
        listed = of_seed(case, seed).get("log_sha256")
        if wrong:
            said = f"wrong log: {', '.join(wrong)} not as in the result"
            yield Finding(place, "fail", said, mend)
        elif listed != file_sha256(case.folder / seed_name(LOG, seed.number)):
            yield Finding(place, "fail", f"wrong log: not the one {SUBMISSION} names", mend)
        else:
            yield Finding(place, "pass", "says what the result says")
