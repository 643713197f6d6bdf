"""Proofs in settled arithmetic encoded once and decoded everywhere, as one table. By hand.

    python benchmarks/travel.py runs/pocket runs/pocket/data
    python benchmarks/travel.py runs/pocket runs/pocket/data --keep FOLDER --only "2 threads" SSE
    python benchmarks/travel.py --python "PyTorch 2.9=/tmp/old/bin/python" \\
        --python "ARM=env PYTHONPATH=SITE qemu-aarch64-static -L ROOT ROOT/usr/bin/python3.11"

Each way to learn is proved on each text; then other processes decode all of the proofs, each with
threads, rows, instructions or a PyTorch of its own, and one with the forward pass of NumPy
(`tests/model/plain_forward.py`). The table says how many came back byte for byte, and with `bits`
whether that process computes as another does: a checksum of products and functions in float64. With
`--keep`, proofs and rows stay in a folder, and a call goes on where another one ended. Exit status
1 says that a proof was refused, or worse.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from measuring.rows import show
from measuring.small_run import given_or_small_run
from measuring.travelling import Proof, encoded
from rich.console import Console
from rich.table import Table

from fairway.artifact.loaded_model import LoadedModel, load_model
from fairway.proof.guard import PLAIN
from fairway.tokens.shards import DataFolder

WORKER = Path(__file__).parent / "measuring" / "decoding.py"


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Where proofs are decoded, and with what.

    command  that runs Python there
    setting  of the environment
    tuned    whether C++ of ours is compiled for the processor, whose best instructions it takes
    noise    margins by which logits and gradients are off; beyond half of one, a proof may be
             refused
    only     the ways it can do, or the texts it is given; None: all
    """

    command: tuple[str, ...] = (sys.executable,)
    setting: dict[str, str] = field(default_factory=dict)
    threads: int | None = 1
    rows: int | None = None
    device: str = "cpu"
    tuned: bool = True
    numpy: bool = False
    noise: float = 0.0
    ways: tuple[str, ...] | None = None
    texts: tuple[str, ...] | None = None

    def takes(self, proof: Proof) -> bool:
        return (self.ways is None or proof.way in self.ways) and (
            self.texts is None or proof.text in self.texts
        )


def instructions(capability: str, onednn: str, mkl: str, *, tuned: bool = False) -> Machine:
    """A processor that knows no more than these."""
    held = {
        "ATEN_CPU_CAPABILITY": capability,
        "ONEDNN_MAX_CPU_ISA": onednn,
        "MKL_ENABLE_INSTRUCTIONS": mkl,
    }
    return Machine(setting=held, tuned=tuned)


MACHINES = {
    "1 thread": Machine(threads=1),
    "2 threads": Machine(threads=2),
    "4 threads": Machine(threads=4),
    "1 row": Machine(rows=1),
    "8 rows": Machine(rows=8),
    "32 rows": Machine(rows=32),
    "SSE": instructions(*list(PLAIN.values())[:3]),
    "AVX2": instructions("avx2", "AVX2", "AVX2"),
    "AVX-512": instructions("avx512", "AVX512_CORE", "AVX512", tuned=True),
    "NumPy": Machine(numpy=True, ways=("frozen",)),
    **{
        f"noise {times:g}": Machine(noise=times, texts=("own", "one letter"))
        for times in (0.5, 10.0, 100.0, 1e3, 1e5)
    },
}


class Kept:
    """What was made for these settings: proofs, and the rows of the table."""

    def __init__(self, folder: Path, settings: dict[str, str]) -> None:
        self.folder, self.file = folder, folder / "rows.jsonl"
        folder.mkdir(parents=True, exist_ok=True)
        told = folder / "settings.json"
        text = json.dumps(settings, indent=1)
        if told.is_file() and told.read_text() != text:
            raise SystemExit(f"{folder} was made with other settings, see {told}; name another")
        told.write_text(text)

    def row(self, label: str) -> list[dict]:
        """What came of each proof on that machine, so far."""
        lines = self.file.read_text().splitlines() if self.file.is_file() else []
        rows = [json.loads(line) for line in lines]
        return [one for machine, found in rows if machine == label for one in found]

    def add(self, label: str, found: list[dict]) -> None:
        with self.file.open("a") as file:
            file.write(json.dumps([label, found]) + "\n")


@contextmanager
def kept(args: argparse.Namespace, loaded: LoadedModel) -> Iterator[Kept]:
    names = ("tokens", "documents", "documents_a_lesson", "lessons", "book", "guard")
    settings = {name: str(getattr(args, name)) for name in names}
    settings["model"] = loaded.sha256
    with tempfile.TemporaryDirectory() as folder:
        yield Kept(args.keep or Path(folder), settings)


def decoded(machine: Machine, model: Path, proofs: list[Proof], folder: Path) -> list[dict]:
    """What each proof came to on a machine, in the order of the proofs; then what it is."""
    job = folder / "job.json"
    listed = [
        {"name": f"{proof.way}, {proof.text}", "path": str(proof.path), "expected": proof.expected}
        for proof in proofs
    ]
    job.write_text(
        json.dumps(
            {
                "model": str(model),
                "threads": machine.threads,
                "rows": machine.rows,
                "device": machine.device,
                "tuned": machine.tuned,
                "numpy": machine.numpy,
                "noise": {
                    "times": machine.noise,
                    "where": ["logits", "gradients"] if machine.noise else [],
                },
                "proofs": listed,
            }
        )
    )
    done = subprocess.run(
        [*machine.command, str(WORKER), str(job)],
        env=os.environ | machine.setting | {"OMP_WAIT_POLICY": "passive"},
        capture_output=True,
        text=True,
        check=False,
    )
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    lacking = len(listed) - sum("proof" in one for one in found)
    note = done.stderr.strip()[-300:]
    return found + [{"proof": "?", "came": "failed", "note": note}] * lacking


def travelled(
    loaded: LoadedModel, data: DataFolder, machines: dict[str, Machine], args: argparse.Namespace
) -> int:
    """Print the table; returns how many did not come back."""
    assert loaded.path is not None
    failures: list[str] = []
    with kept(args, loaded) as held:
        proofs = encoded(loaded, data, args, held.folder)
        columns = list(dict.fromkeys(proof.way for proof in proofs))
        table = Table("decoded with", *columns, "tokens/s", "PyTorch, instructions, bits")
        for label, machine in machines.items():
            known = {one.get("proof") for one in held.row(label)}
            mine = [p for p in proofs if machine.takes(p) and f"{p.way}, {p.text}" not in known]
            if mine:
                held.add(label, decoded(machine, loaded.path, mine, held.folder))
            failures += _add_row(table, label, machine, held.row(label), columns)
    Console(stderr=True, width=140).print(table)
    for line in failures:
        print(line, file=sys.stderr)
    return len(failures)


def _add_row(
    table: Table, label: str, machine: Machine, found: list[dict], columns: list[str]
) -> list[str]:
    """To the table, and as a line; returns in words what did not come back."""
    came = [one for one in found if "proof" in one]
    here = next((one["circumstances"] for one in found if "circumstances" in one), {})
    cells = []
    for way in columns:
        of_way = [one["came"] for one in came if one["proof"].startswith(f"{way},")]
        refused = f", {of_way.count('refused')} refused" if "refused" in of_way else ""
        cells.append(f"{of_way.count('same')}/{len(of_way)}{refused}" if of_way else "")
    good = [one for one in came if one["came"] == "same"]
    allowed = {"same", "refused"} if machine.noise > 0.5 else {"same"}
    bad = [one for one in came if one["came"] not in allowed]
    seconds = sum(one["seconds"] for one in good)
    rate = sum(one["tokens"] for one in good) / seconds if seconds else 0.0
    told = ", ".join(here.get(name, "?") for name in ("torch", "instructions", "bits"))
    table.add_row(label, *cells, f"{rate:,.0f}", told)
    counts = {way: cell for way, cell in zip(columns, cells, strict=True) if cell}
    show(f"decoded: {label}", **counts, tokens_per_second=rate, not_the_same=len(bad), with_=told)
    return [f"{label}: {one['proof']}: {one['came']}: {one['note']}" for one in bad]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, nargs="?")
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--tokens", type=int, default=1280, help="of each text")
    parser.add_argument("--documents", type=int, default=8, help="that each text is cut into")
    parser.add_argument(
        "--documents-a-lesson",
        type=int,
        help="that SGD and Muon have in a lesson, which are those that stand in step there; "
        "otherwise their texts are cut like the others'",
    )
    parser.add_argument("--lessons", type=int, default=20, help="of SGD; Muon has a fourth of them")
    parser.add_argument("--book", type=Path, help="a text file to prove besides")
    parser.add_argument("--texts", nargs="*", help="names of the texts to prove; otherwise all")
    parser.add_argument("--guard", action="store_true", help="guard each proof, and say how far")
    parser.add_argument("--keep", type=Path, help="folder of proofs and rows, to go on from")
    parser.add_argument(
        "--python",
        action="append",
        default=[],
        metavar="NAME=COMMAND",
        help="another Python with PyTorch; with [TEXT] after the name, for that text alone",
    )
    parser.add_argument("--only", nargs="*", help="names of the machines to decode with")
    parser.add_argument("--cuda", action="store_true", help="decode on a GPU, too")
    parser.add_argument("--brief", action="store_true", help="160 tokens in 2 documents, 4 lessons")
    args = parser.parse_args()
    if args.brief:
        args.tokens, args.documents, args.lessons = 160, 2, 4
    machines = dict(MACHINES)
    if args.cuda:
        machines["GPU"] = Machine(device="cuda")
    for told in args.python:
        name, _, command = told.partition("=")
        name, _, text = name.partition("[")
        only = (text.rstrip("]"),) if text else None
        machines[name] = Machine(command=tuple(shlex.split(command)), texts=only)
    if args.only is not None:
        machines = {name: machines[name] for name in args.only}
    with given_or_small_run(args.run, args.data) as (run, data):
        bad = travelled(load_model(run / "model.fwy"), DataFolder(data), machines, args)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
