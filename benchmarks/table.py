"""Every row that docs/performance.md promises for two cores, in one call of under 15 minutes.

    python benchmarks/table.py [--only training decoding ...] [--into docs/performance.md]

Runs the benchmark behind each row, with nothing else beside it, tells each figure as it comes, and
ends with the table of that page in Markdown; `--into` puts it there, between its two marks. Quote
only what a quiet machine printed. What needs a GPU is printed by `benchmarks/gpu.sh`, and bits per
byte after 180 seconds by `make demo`.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from measuring.rows import Row, machine_name

HERE = Path(__file__).parent
BEGIN, END = "<!-- benchmarks/table.py -->", "<!-- end of benchmarks/table.py -->"


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of the table: the best of the figures `key` in all rows whose names start so.

    asked  at least, or at most where less is better
    unit   how a figure is written
    """

    work: str
    against: str
    rows: str
    key: str
    asked: float
    unit: str = "{:,.2f}x"
    less_is_better: bool = False

    def found(self, rows: Sequence[Row]) -> str:
        """The best figure, whether it is what was asked, and the figures it is the best of."""
        figures: dict[str, float] = {}
        for row in rows:
            if str(row["name"]).startswith(self.rows):
                figures[str(row["name"]).removeprefix(self.rows).strip(" ,")] = float(row[self.key])
        if not figures:
            return "could not be run"
        best = (min if self.less_is_better else max)(figures.values())
        reached = best <= self.asked if self.less_is_better else best >= self.asked
        told = f"{self.unit.format(best)}, {'reached' if reached else '**missed**'}"
        if len(figures) > 1:
            told += f" ({'; '.join(f'{n} {self.unit.format(v)}' for n, v in figures.items())})"
        return told

    def wanted(self) -> str:
        return f"{'at most' if self.less_is_better else 'at least'} {self.unit.format(self.asked)}"


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    command: str
    minutes: float  # about, on two quiet cores
    lines: tuple[Line, ...]


BENCHMARKS = {
    "start": Benchmark(
        command="start.py",
        minutes=2.5,
        lines=tuple(
            Line(
                work=f"start to first step, warm, {kind} steps",
                against="the clock",
                rows=f"start to first step, {kind}",
                key="seconds",
                asked=10.0,
                unit="{:,.1f} s",
                less_is_better=True,
            )
            for kind in ("eager", "compiled")
        ),
    ),
    "training": Benchmark(
        command="steps.py pocket --repeats 20",
        minutes=2,
        lines=(
            Line(
                work="training step, `pocket`",
                against="plain bf16 GPT of its width and depth, fused AdamW, best of eager and "
                "compiled",
                rows="pocket in bfloat16: ours",
                key="times_the_best_peer",
                asked=1.0,
            ),
        ),
    ),
    "baseline": Benchmark(
        command="steps.py naive_baseline --repeats 3",
        minutes=4,
        lines=(
            Line(
                work="training step, `naive_baseline` shape",
                against="nanoGPT 9 x 384, best of eager and compiled",
                rows="naive_baseline in bfloat16: ours",
                key="times_the_best_peer",
                asked=1.1,
            ),
        ),
    ),
    "learning": Benchmark(
        command="evaluate.py --epochs",
        minutes=1.5,
        lines=(
            Line(
                work="learning epochs, bfloat16, eager",
                against="the published loop in bfloat16",
                rows="learning epochs in bfloat16",
                key="times_as_fast",
                asked=1.5,
            ),
        ),
    ),
    "mixture": Benchmark(
        command="mixture.py --tokens 20000 --repeats 1",
        minutes=0.5,
        lines=(
            Line(
                work="n-gram mixture in C++",
                against="its plain form",
                rows="n-gram mixture",
                key="times_as_fast",
                asked=10.0,
                unit="{:,.1f}x",
            ),
        ),
    ),
    "decoding": Benchmark(
        command="decoding.py --tokens 1024 --repeats 2",
        minutes=1.5,
        lines=tuple(
            Line(
                work=f"decoding one stream, {how}",
                against=f"{before} tokens/s before, {times} times of it",
                rows=f"one stream, {how}, native",
                key="tokens_per_second",
                asked=float(before * times),
                unit="{:,.0f} tokens/s",
            )
            for how, before, times in (("frozen", 406, 3), ("as the recipe learns", 331, 2))
        ),
    ),
}


def rows_of(command: str) -> Iterator[Row]:
    """What a benchmark prints, as it comes; RuntimeError with its last words where it fails."""
    file, *arguments = command.split()
    words = [sys.executable, str(HERE / file), *arguments]
    with (
        tempfile.TemporaryFile("w+") as said,  # a pipe that nobody reads would fill up
        subprocess.Popen(words, stdout=subprocess.PIPE, stderr=said, text=True) as process,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("{"):
                yield json.loads(line)
        if status := process.wait():
            said.seek(0)
            raise RuntimeError((said.read().strip().splitlines() or [f"status {status}"])[-1])


def run(name: str) -> tuple[list[Row], bool]:
    """The rows of a benchmark, each told as it comes, and whether it ran to its end."""
    benchmark, found, begin = BENCHMARKS[name], [], time.perf_counter()
    print(f"{name}: {benchmark.command}, about {benchmark.minutes:g} minutes", flush=True)
    try:
        for row in rows_of(benchmark.command):
            found.append(row)
            told = (f"{k} {v:,.4g}" for k, v in row.items() if isinstance(v, float))
            seconds = time.perf_counter() - begin
            print(f"  {seconds:4.0f} s  {row['name']}: {', '.join(told)}", flush=True)
    except RuntimeError as error:
        print(f"  could not be run: {error}", flush=True)
        return found, False
    return found, True


def markdown(found: dict[str, list[Row]]) -> str:
    """The table, its marks and what it was measured on."""
    lines = [
        BEGIN,
        "",
        f"{date.today().isoformat()}, {machine_name()}; `python benchmarks/table.py`, nothing else "
        f"running.",
        "",
        "| Work | Against | Asked | Found | Command |",
        "|---|---|---|---|---|",
    ]
    for name, rows in found.items():
        for line in BENCHMARKS[name].lines:
            cells = (line.work, line.against, line.wanted(), line.found(rows))
            lines.append(
                f"| {' | '.join(cells)} | `python benchmarks/{BENCHMARKS[name].command}` |"
            )
    return "\n".join([*lines, "", END])


def put_into(page: Path, table: str) -> None:
    """In the place of the table that is there."""
    text = page.read_text()
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise SystemExit(f"{page} has no place for the table: the lines {BEGIN} and {END}")
    before, _, rest = text.partition(BEGIN)
    page.write_text(before + table + rest.partition(END)[2])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", choices=list(BENCHMARKS), default=list(BENCHMARKS))
    parser.add_argument("--brief", action="store_true", help="the row that is fastest to print")
    parser.add_argument("--into", type=Path, help="page to put the table into")
    args = parser.parse_args()
    if args.into is not None and len(args.only) < len(BENCHMARKS):
        parser.error("--into takes the whole table: leave --only out")
    begin, found, whole = time.perf_counter(), {}, True
    for name in ["mixture"] if args.brief else args.only:
        found[name], ran = run(name)
        whole &= ran
    table = markdown(found)
    print(f"\n{table}\n\n{(time.perf_counter() - begin) / 60:.1f} minutes")
    if args.into is not None:
        put_into(args.into, table)
    return int(not whole)


if __name__ == "__main__":
    sys.exit(main())
