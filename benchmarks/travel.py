"""Proofs in settled arithmetic encoded once and decoded everywhere, as one table. By hand.

    python benchmarks/travel.py runs/pocket runs/pocket/data
    python benchmarks/travel.py --python "PyTorch 2.9=/tmp/old/bin/python" \\
        --python "ARM=env PYTHONPATH=SITE qemu-aarch64-static -L ROOT ROOT/usr/bin/python3.11"

Each way to learn is proved on each text; then other processes decode all of the proofs, each with
threads, rows, instructions or a PyTorch of its own, and one with the forward pass of NumPy
(`tests/model/plain_forward.py`). The table says how many came back byte for byte. Exit status 1
says that one was refused, or worse.
"""

import argparse
import json
import os
import random
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

from measuring.decoding import texts_sha256
from measuring.rows import show
from measuring.small_run import given_or_small_run
from rich.console import Console
from rich.table import Table

from fairway.artifact.loaded_model import LoadedModel, load_model
from fairway.evaluate.config import EvaluateConfig
from fairway.evaluate.learners.documents import DocumentAdapters
from fairway.evaluate.learners.mixture import Mixture
from fairway.evaluate.learners.sgd import Sgd
from fairway.proof.guard import PLAIN
from fairway.proof.prove import evaluation_of, prove, validation_text
from fairway.tokens.shards import DataFolder
from fairway.tokens.val_text import ValText

LESSONS = 20
WORKER = Path(__file__).parent / "measuring" / "decoding.py"


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Where proofs are decoded, and with what.

    command  that runs Python there
    setting  of the environment
    only     the ways it can do, or the texts it is given; None: all
    """

    command: tuple[str, ...] = (sys.executable,)
    setting: dict[str, str] = field(default_factory=dict)
    threads: int | None = 1
    rows: int | None = None
    device: str = "cpu"
    numpy: bool = False
    ways: tuple[str, ...] | None = None
    texts: tuple[str, ...] | None = None


def instructions(capability: str, onednn: str, mkl: str) -> Machine:
    """A processor that knows no more than these."""
    held = {
        "ATEN_CPU_CAPABILITY": capability,
        "ONEDNN_MAX_CPU_ISA": onednn,
        "MKL_ENABLE_INSTRUCTIONS": mkl,
    }
    return Machine(setting=held)


MACHINES = {
    "1 thread": Machine(threads=1),
    "2 threads": Machine(threads=2),
    "4 threads": Machine(threads=4),
    "1 row": Machine(rows=1),
    "8 rows": Machine(rows=8),
    "32 rows": Machine(rows=32),
    "SSE": instructions(*list(PLAIN.values())[:3]),
    "AVX2": instructions("avx2", "AVX2", "AVX2"),
    "AVX-512": instructions("avx512", "AVX512_CORE", "AVX512"),
    "NumPy": Machine(numpy=True, ways=("frozen",)),
}


def ways(own: EvaluateConfig, chunk: int) -> dict[str, EvaluateConfig]:
    """How the text is scored, documents apart so that there are rows to stand in step."""
    base = replace(
        own,
        arithmetic="settled",
        precision="float32",
        stride=min(own.stride, chunk),
        rows=32,
        documents=True,
        ttt=None,
        mixture=None,
        tilt=None,
    )
    steps = Sgd(chunk_tokens=chunk, epochs=1, lr=0.005, batch_sequences=4)
    return {
        "frozen": base,
        "SGD": replace(base, ttt=steps),
        "Muon": replace(base, ttt=replace(steps, lr=0.002, optimizer="muon")),
        "adapters": replace(base, ttt=DocumentAdapters()),
        "mixture": replace(base, mixture=Mixture()),
    }


def texts(loaded: LoadedModel, data: DataFolder, book: Path | None) -> dict[str, bytes]:
    """The run's own text, a chapter, what is no text at all, and what is too easy."""
    own = loaded.tokenizer.decode(validation_text(loaded, data).tokens[:100_000].tolist())
    found = {
        "own": own,
        "junk": random.Random(0).randbytes(100_000),
        "one letter": b"a" * 300_000,
    }
    return found if book is None else found | {"book": book.read_bytes()}


def first_tokens(loaded: LoadedModel, data: bytes, tokens: int, documents: int) -> ValText:
    """About so many tokens of a text, as equally long documents."""
    each = max(1, tokens // documents)
    ids = loaded.tokenizer.encode(data).tolist()[: each * documents]
    parts = [loaded.tokenizer.decode(ids[i : i + each]) for i in range(0, len(ids), each)]
    return ValText.of_documents(parts, loaded.tokenizer)


@dataclass(frozen=True)
class Proof:
    way: str
    text: str
    path: Path
    expected: str


def encoded(
    loaded: LoadedModel, data: DataFolder, args: argparse.Namespace, folder: Path
) -> Iterator[Proof]:
    """Every way on every text. Told of each: what the ties took, and how far the guard's sample
    came apart, where that was asked for."""
    chosen = ways(evaluation_of(loaded).resolved(loaded.model.config.train_context), args.chunk)
    for text_name, content in texts(loaded, data, args.book).items():
        text = first_tokens(loaded, content, args.tokens, args.documents)
        ids = text.tokens.long()
        starts = [*text.document_starts, len(ids)]
        documents = [loaded.tokenizer.decode(ids[a + 1 : b].tolist()) for a, b in pairwise(starts)]
        for way, config in chosen.items():
            path = folder / f"{way} {text_name}.fwp"
            certificate = prove(
                loaded, text, out=path, evaluate=config, guard=args.guard, decode_seconds=0.0
            )
            facts = certificate.settled
            assert facts is not None
            show(
                f"encoded: {way}, {text_name}",
                tokens=certificate.num_tokens,
                coded_bytes=certificate.coded_bytes,
                ties=facts.ties,
                tie_bytes=facts.tie_bytes,
                holds=certificate.holds,
                **{} if facts.deviation is None else {"logit_deviation": facts.deviation},
                **{} if facts.state_deviation is None else {"state": facts.state_deviation},
            )
            yield Proof(way, text_name, path, texts_sha256(documents))


def decoded(machine: Machine, model: Path, proofs: list[Proof], folder: Path) -> list[dict]:
    """What each proof came to on a machine, in the order of the proofs."""
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
                "numpy": machine.numpy,
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
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        proofs = list(encoded(loaded, data, args, folder))
        columns = list(dict.fromkeys(proof.way for proof in proofs))
        table = Table("decoded with", *columns, "tokens/s", "PyTorch, instructions")
        for label, machine in machines.items():
            mine = [
                proof
                for proof in proofs
                if (machine.ways is None or proof.way in machine.ways)
                and (machine.texts is None or proof.text in machine.texts)
            ]
            found = decoded(machine, loaded.path, mine, folder)
            came = [one for one in found if "proof" in one]
            here = next((one["circumstances"] for one in found if "circumstances" in one), {})
            cells = []
            for way in columns:
                of_way = [one["came"] for one in came if one["proof"].startswith(f"{way},")]
                cells.append(f"{of_way.count('same')}/{len(of_way)}" if of_way else "")
            good = [one for one in came if one["came"] == "same"]
            seconds = sum(one["seconds"] for one in good)
            rate = sum(one["tokens"] for one in good) / seconds if seconds else 0.0
            told = f"{here.get('torch', '?')}, {here.get('instructions', '?')}"
            table.add_row(label, *cells, f"{rate:,.0f}", told)
            bad = [one for one in came if one["came"] != "same"]
            failures += [f"{label}: {b['proof']}: {b['came']}: {b['note']}" for b in bad]
            counts = {way: cell for way, cell in zip(columns, cells, strict=True) if cell}
            show(f"decoded: {label}", **counts, tokens_per_second=rate, not_the_same=len(bad))
    Console(stderr=True).print(table)
    for line in failures:
        print(line, file=sys.stderr)
    return len(failures)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, nargs="?")
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--tokens", type=int, default=1280, help="of each text")
    parser.add_argument("--documents", type=int, default=8, help="that each text is cut into")
    parser.add_argument("--book", type=Path, help="a text file to prove besides")
    parser.add_argument("--guard", action="store_true", help="guard each proof, and say how far")
    parser.add_argument(
        "--python",
        action="append",
        default=[],
        metavar="NAME=COMMAND",
        help="another Python with PyTorch; with [TEXT] after the name, for that text alone",
    )
    parser.add_argument("--only", nargs="*", help="names of the machines to decode with")
    parser.add_argument("--cuda", action="store_true", help="decode on a GPU, too")
    parser.add_argument("--brief", action="store_true", help="160 tokens in 2 documents")
    args = parser.parse_args()
    if args.brief:
        args.tokens, args.documents = 160, 2
    args.chunk = max(4, args.tokens // LESSONS // 4 * 4)
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
