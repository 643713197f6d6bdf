"""From seeds to a record that stands alone and is believed elsewhere. By hand.

    python benchmarks/record.py                      # the built-in text, half a minute a seed
    python benchmarks/record.py DATA --seconds 600   # a text of yours

Seeds of the demo's recipe are run and handed in (`fairway seeds`, `fairway submit`). Then a virtual
environment is made with nothing but the folder's requirements, without fairway, in which
`train_gpt.py --eval` scores each model and `train_gpt.py` trains one; and another process, with
other threads and with SSE instructions only, judges the folder (`fairway check`), which scores and
decodes everything anew. Exit status 1 says what is not as it should be.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from measuring.rows import show

from fairway.demo import builtin_documents
from fairway.prepare import prepare_documents
from fairway.proof.guard import PLAIN
from fairway.text import split_documents

RECIPE, SEEDS = "pocket", ("0", "42", "1234")
VAL_BYTES = 6_000  # of the built-in text, so that learning while scoring takes seconds


def small_text(out: Path) -> Path:
    """The built-in text, of whose validation documents only the first are kept."""
    train, val = split_documents(builtin_documents())
    size, kept = 0, []
    for document in val:
        kept.append(document)
        size += len(document)
        if size >= VAL_BYTES:
            break
    prepare_documents(out, train, kept, vocab_size=2048, source="CPython's own documentation")
    return out


def called(*words: str | Path, **setting: str) -> str:
    """What a program printed last; its progress goes to the screen."""
    done = subprocess.run(
        list(map(str, words)), env=os.environ | setting, stdout=subprocess.PIPE, text=True
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, words))}\nended with {done.returncode}")
    return done.stdout.strip().rpartition("\n")[2]


def fairway(*words: str | Path, **setting: str) -> dict[str, Any]:
    return json.loads(called(sys.executable, "-m", "fairway", *words, "--json", **setting))


def handed_in(data: Path, place: Path, seconds: float) -> Path:
    runs, record = place / "runs", place / "record"
    told = ("--train.seconds", str(seconds), "--audit-seconds", "10")
    fairway("seeds", RECIPE, data, "--seeds", *SEEDS, "--out", runs, *told)
    folders = [runs / f"seed-{seed}" for seed in SEEDS]
    found = fairway("submit", *folders, "--out", record)
    show("handed in", bits_per_byte=found["val_bpb"], script_bytes=found["bytes_code"])
    return record


def clean_python(record: Path, place: Path) -> Path:
    """Of an environment that holds what the folder lists."""
    started, python = time.perf_counter(), place / "clean" / "bin" / "python"
    called(sys.executable, "-m", "venv", place / "clean")
    called(python, "-m", "pip", "install", "--quiet", "-r", record / "requirements.txt")
    installed = json.loads(called(python, "-m", "pip", "list", "--format", "json"))
    names = {one["name"] for one in installed}
    if "fairway" in names:
        raise SystemExit("the clean environment holds fairway")
    show("clean environment", packages=len(names), seconds=time.perf_counter() - started)
    return python


def stands_alone(record: Path, data: Path, place: Path) -> list[str]:
    """Scores every model with the script, and trains; returns what is not as it was claimed."""
    alone = Path(shutil.copytree(record, place / "alone"))  # what is retrained is no part of it
    python, script = clean_python(record, place), alone / "train_gpt.py"
    claims = json.loads((record / "submission.json").read_bytes())["seed_results"]
    wrong = []
    for seed in SEEDS:
        setting = {"DATA_PATH": str(data), "SEED": seed, "PYTHONPATH": ""}
        found = json.loads(called(python, "-P", script, "--eval", **setting))
        show("scored alone", seed=seed, bits_per_byte=found["val_bpb"])
        if found["val_bpb"] != claims[seed]["val_bpb"]:
            wrong.append(f"seed {seed}: {found['val_bpb']}, {claims[seed]['val_bpb']} claimed")
    setting = {"DATA_PATH": str(data), "SEED": SEEDS[0], "PYTHONPATH": ""}
    found = json.loads(called(python, "-P", script, **setting))
    size = (alone / f"retrained_seed{SEEDS[0]}.fwy").stat().st_size
    show("trained alone", bits_per_byte=found["val_bpb"], model_bytes=size)
    return wrong


def judged_elsewhere(record: Path, data: Path) -> list[str]:
    """By a process that computes otherwise in all that may differ."""
    found = fairway("check", record, data, "--seconds", "60", **PLAIN, OMP_NUM_THREADS="2")
    findings = {one["check"]: one for one in found["findings"]}
    needed = [f"{what}, seed {seed}" for what in ("proof", "scored again") for seed in SEEDS]
    for check in needed:
        show("judged elsewhere", check=check, answer=findings[check]["answer"])
    return [f"{c}: {findings[c]['said']}" for c in needed if findings[c]["answer"] != "pass"]


def main() -> int:
    parser = argparse.ArgumentParser(description="Seeds to a record that stands alone.")
    parser.add_argument("data", nargs="?", type=Path, help="a prepared text; else the built-in one")
    parser.add_argument("--seconds", type=float, default=30.0, help="of training, for each seed")
    parser.add_argument("--out", type=Path, help="a new folder to keep everything in")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) if args.out is None else args.out.resolve()
        place.mkdir(parents=True, exist_ok=True)
        data = small_text(place / "data") if args.data is None else args.data.resolve()
        record = handed_in(data, place, args.seconds)
        wrong = stands_alone(record, data, place) + judged_elsewhere(record, data)
    for line in wrong:
        print(line, file=sys.stderr)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
