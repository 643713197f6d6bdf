"""Signals at random moments of a run, at every stage; then the same command until it is done.

    python benchmarks/faults/kills.py [--kills 60]                        # kill -9
    python benchmarks/faults/kills.py --signal TERM --kills 10            # asked to stop
    python benchmarks/faults/kills.py --signal TERM --kills 10 --ranks 2  # under torchrun

Each run is a miniature: of fixed steps, so that its artifact must equal an undisturbed one's, or
(every third one) by the clock, so that its seconds must stay within their budget. A moment is drawn
over the whole of a run, or within one stage: the run says on a pipe when the stage begins, and the
signal comes after a random share of the time that an undisturbed one takes. Stages that were hit
seldom are aimed at first. Logs must only grow, and no partial file may be left. Processes are
forked from this one, which has loaded everything: they die as any do. `prepare` is a command of its
own and is killed as often as a stage.

Prints a JSON line for each run and a table of the stages that were hit; exit status 1 where a run
failed, or a stage was hit less than five times (`--each`).
"""

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from started import (
    BY_STEPS,
    CLOCKED,
    MOST_SECONDS,
    OPTIONS,
    VERSES,
    Started,
    entries,
    open_stage,
    start,
)

from fairway.pipeline.story import run
from fairway.prepare import prepare
from fairway.recipes.recipe import Recipe
from fairway.result import RunResult, read_result
from fairway.runtime.stopping import Stopped, listening


@dataclass
class Target:
    """Something that can be killed and done again.

    same  None, or in what its outcome differs from an undisturbed one
    """

    work: Callable[[Path], object]
    same: Callable[[Path], str | None]
    durations: dict[str, float] = field(default_factory=dict)


def undisturbed(work: Callable[[], object], log: Path | None, errors: Path) -> dict[str, float]:
    """Seconds of each stage, and of the whole."""
    began = time.perf_counter()
    started = start(work, errors)
    started.process.join(MOST_SECONDS)
    if started.close():
        sys.exit(f"the undisturbed run failed: {errors.read_text()[-500:]}")
    whole = time.perf_counter() - began
    ended = [e for e in entries(log) if e.get("event") == "end"] if log is not None else []
    return {"": whole, **{entry["stage"]: entry["spent"] for entry in ended}}


def one_run(
    target: Target, out: Path, moments: list[tuple[str, float]], number: int
) -> dict[str, Any]:
    """Send the signal at each of the moments (stage, share of it), then let the run finish."""
    hit: list[str] = []
    log, said, errors = out / "train.log", b"", out.with_suffix(".errors")
    for moment in [*moments, None]:
        started = start(lambda: target.work(out), errors)
        if moment is None:
            started.process.join(MOST_SECONDS)
        elif struck(started, target, moment, number):
            hit.append(open_stage(log))
        if started.process.exitcode is None:
            started.end(signal.SIGKILL, 0.0)
            return {"ok": False, "why": "it did not end", "hit": hit}
        status = started.close()
        wanted = (0, -number, 128 + number) if moment is not None else (0,)
        if status not in wanted:
            return {"ok": False, "why": errors.read_text()[-600:], "status": status, "hit": hit}
        now = log.read_bytes() if log.exists() else b""
        if not now.startswith(said):
            return {"ok": False, "why": "the log was cut", "hit": hit}
        said = now
    wrong = target.same(out)
    left = [path.name for path in out.rglob("*partial*")] if out.is_dir() else []
    return {"ok": wrong is None and not left, "why": wrong, "left": left, "hit": hit}


def struck(started: Started, target: Target, moment: tuple[str, float], number: int) -> bool:
    """Whether the signal came while the run was there; the stage "" is any."""
    stage, share = moment
    if stage and not started.wait_for(stage):
        started.process.join(MOST_SECONDS)  # it was past that stage, and is about to end
        return False
    return started.end(number, share * target.durations.get(stage, 0.02))


def by_steps(data: Path, whole: Path, ranks: int) -> Target:
    """A run whose artifact and score are known."""

    def same(out: Path) -> str | None:
        if (out / "model.fwy").read_bytes() != (whole / "model.fwy").read_bytes():
            return "another artifact"
        found, expected = read_result(out), read_result(whole)
        if found.score != expected.score:
            return f"score {found.score} instead of {expected.score}"
        return accused(found)

    return Target(lambda out: run_it(BY_STEPS, data, out, ranks), same)


def by_clock(data: Path, ranks: int) -> Target:
    """A run whose seconds are limited."""

    def same(out: Path) -> str | None:
        found = read_result(out)
        budget = found.train.budget_seconds or 0.0
        if found.train.seconds > budget:
            return f"trained for {found.train.seconds:.3f} s of {budget} s"
        evaluated = found.evaluate
        if evaluated is None or (evaluated.budget_seconds or 0.0) < evaluated.seconds:
            return "scored over its time"
        return accused(found)

    return Target(lambda out: run_it(CLOCKED, data, out, ranks), same)


def accused(found: RunResult) -> str | None:
    """What its checks say no to, if anything."""
    if found.holds:
        return None
    audit = "" if found.audit is None else json.dumps(found.audit.to_json())
    return f"proof {found.proof}, audit {audit[:1500]}"


def run_it(chosen: Recipe, data: Path, out: Path, ranks: int) -> None:
    if ranks == 1:
        run(chosen, data, out, OPTIONS)
        return
    place, name = Path(__file__), "BY_STEPS" if chosen is BY_STEPS else "CLOCKED"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
    words = [str(ranks), str(place), "--as-rank", name, str(data), str(out)]
    os.execve(command[0], [*command, *words], {**os.environ, "OMP_NUM_THREADS": "1"})


def preparing(folder: Path, whole: Path) -> Target:
    """The data folder, made from a source by one process."""
    source = folder / "song.txt"
    source.write_bytes(b"\0".join(b"%d. " % i + verse for i, verse in enumerate(VERSES * 5)))

    def work(out: Path) -> None:
        with listening():
            if not out.exists():  # else it was done before the signal came
                prepare(out, [source], vocab_size=300, val_fraction=0.1, workers=1)

    def same(out: Path) -> str | None:
        differ = [p.name for p in whole.iterdir() if p.read_bytes() != (out / p.name).read_bytes()]
        return f"other {', '.join(differ)}" if differ else None

    return Target(work, same)


def next_moments(
    chance: random.Random, hits: Counter[str], stages: list[str], each: int, most: int
) -> list[tuple[str, float]]:
    """Stages that were hit too seldom, in the order of a run; anywhere once all were."""
    seldom = [stage for stage in stages if hits[stage] < each]
    if not seldom:
        return [("", chance.uniform(0.1, 1.0)) for _ in range(min(most, chance.randint(1, 3)))]
    chosen = set(chance.sample(seldom, min(len(seldom), most, 4)))
    return [(stage, chance.random()) for stage in stages if stage in chosen]


def campaign(folder: Path, kills: int, each: int, seed: int, number: int, ranks: int) -> int:
    chance, errors = random.Random(seed), folder / "whole.errors"
    data, whole = folder / "data", folder / "whole"
    preparation = preparing(folder, data)
    preparation.durations = undisturbed(lambda: preparation.work(data), None, errors)
    steps, clock = by_steps(data, whole, ranks), by_clock(data, ranks)
    log = whole / "train.log"
    steps.durations = undisturbed(lambda: steps.work(whole), log, errors)
    clock.durations = dict(steps.durations) | {"train": CLOCKED.train.seconds or 0.0}
    stages = [stage for stage in steps.durations if stage and stage != "prepare"]
    print(json.dumps({"undisturbed": steps.durations}), flush=True)
    hits: Counter[str] = Counter()
    runs = failed = 0
    while hits.total() < kills or (runs < 4 * kills and min(hits[s] for s in stages) < each):
        target = clock if runs % 3 == 2 else steps
        most = max(1, kills - hits.total())
        moments = next_moments(chance, hits, stages, each, most)
        if ranks == 1 and hits["prepare"] < each and runs % 2 == 0:
            target, moments = preparation, [("", chance.uniform(0.1, 0.9))]
        out = folder / f"run{runs}"
        found = one_run(target, out, moments, number)
        if target is preparation:
            found["hit"] = ["prepare"] * len(found["hit"])
        runs, failed = runs + 1, failed + (not found["ok"])
        hits.update(found["hit"])
        print(json.dumps(found), flush=True)
    title = f"{hits.total()} signals, {runs} runs, {failed} failed"
    table = Table("stage", "hit", title=title)
    for stage, count in hits.most_common():
        table.add_row(stage, str(count))
    Console().print(table)
    return 1 if failed or min(hits[stage] for stage in stages) < each else 0


def main() -> int:
    if "--as-rank" in sys.argv:
        name, data, out = sys.argv[2:]
        try:
            run({"BY_STEPS": BY_STEPS, "CLOCKED": CLOCKED}[name], Path(data), Path(out), OPTIONS)
        except Stopped as stop:
            return 128 + stop.signal
        return 0
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--each", type=int, default=5, help="hits that each stage needs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--signal", default="KILL", help="KILL, TERM, INT, USR1 or USR2")
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--brief", action="store_true", help="three signals")
    args = parser.parse_args()
    kills, each = (3, 0) if args.brief else (args.kills, args.each)
    number = signal.Signals[f"SIG{args.signal}"]
    with tempfile.TemporaryDirectory() as folder:
        return campaign(Path(folder), kills, each, args.seed, number, args.ranks)


if __name__ == "__main__":
    sys.exit(main())
