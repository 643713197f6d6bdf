"""What eleven changes do to a model of seconds: the runs behind the example in docs/runs.md.

    python benchmarks/sweep.py DATA OUT                     # DATA as below; some ten minutes
    fairway effects --runs OUT/runs.sqlite --page OUT/effects.html

Each change is run with three seeds for so many steps; those that change what a step costs are run
for so many seconds, too. What is
finished is not run again, so it may be killed at any time. `--prepare TRAIN VAL` makes DATA first,
of the first documents of two files in which a NUL stands between documents.
"""

import argparse
import lzma
import time
from pathlib import Path

from fairway.evaluate.learners.sgd import Sgd
from fairway.pipeline.options import RunOptions
from fairway.pipeline.seeds import run_seeds
from fairway.prepare import prepare_documents
from fairway.quant.rules import Gptq, KeepHalf, QuantConfig
from fairway.recipes.diff import override
from fairway.recipes.pocket import pocket
from fairway.recipes.recipe import Recipe

SEEDS = (0, 42, 1234)
STEPS, SECONDS = 60, 4.0
VOCAB = 1024
LONGEST = 1500  # bytes of a validation document: many documents in little text
OPTIONS = RunOptions(proof_tokens=0, audit_seconds=0, threads=1, compute_dtype="float32")


def tiny() -> Recipe:
    """`pocket` with two layers of width 96, for steps of a hundredth of a second."""
    quant = QuantConfig(
        rules=(
            ("blocks.*.weight", Gptq(bits=6)),
            ("embed.weight", Gptq(bits=7)),
            ("*", KeepHalf()),
        ),
        min_elements=1024,
        calibration_batches=4,
        reserve_seconds=0.0,
    )
    changes: dict[str, object] = {
        "name": "tiny",
        "parent": "pocket",
        "tokens.vocab_size": VOCAB,
        "tokens.val_tokens": 12_000,
        "model.vocab_size": VOCAB,
        "model.model_dim": 96,
        "model.num_layers": 2,
        "model.attention.exclusive_layers": 2,
        "model.attention.rope_dims": 16,
        "model.train_context": 128,
        "model.embedding.ngrams": (),
        "train.seconds": None,
        "train.steps": STEPS,
        "train.reserve_seconds": 0.0,
        "train.batch.rows": 4,
        "train.batch.context": 128,
        "average.decay": 0.95,
        "quant": quant,
        "evaluate.context": 128,
        "evaluate.stride": 128,
        "evaluate.ttt": Sgd(chunk_tokens=1024, epochs=1, lr=0.002, optimizer="muon"),
        "evaluate_range": None,
    }
    return override(pocket(), changes)


CHANGES: dict[str, dict[str, object]] = {
    "base": {},
    "no-exclusive": {"model.attention.exclusive_layers": 0},
    "no-smear": {"model.embedding.smear": None},
    "no-layer-scale": {"model.layer_scale": False},
    "slope-0": {"model.mlp.slope": 0.0},
    "mlp-3": {"model.mlp.ratio": 3.0},
    "three-layers": {"model.num_layers": 3},
    "muon-lr-0.04": {"train.optimizer.muon.lr": 0.04},
    "embed-lr-0.06": {"train.optimizer.embed.lr": 0.06},
    "no-average": {"average": None},
    "no-mixture": {"evaluate.mixture": None},
    "no-learning": {"evaluate.ttt": None},
}
COSTLY = ("base", "no-layer-scale", "mlp-3", "three-layers")  # change the seconds of a step
CLOCK: dict[str, object] = {"train.steps": None, "train.seconds": SECONDS}


def main() -> None:
    parser = argparse.ArgumentParser(description="A sweep of changes, one at a time.")
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--prepare", type=Path, nargs=2, metavar=("TRAIN", "VAL"))
    args = parser.parse_args()
    if args.prepare and not args.data.exists():
        train, val = (documents(path) for path in args.prepare)
        short = [document for document in val if len(document) < LONGEST]
        prepare_documents(args.data, train[:60], short[:40], vocab_size=VOCAB, source="webdocs")
    args.out.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    for length, names, clock in (("steps", CHANGES, {}), ("seconds", COSTLY, CLOCK)):
        for name in names:
            recipe = override(tiny(), {**clock, **CHANGES[name]})
            folder = args.out / f"{name}-{length}"
            run_seeds(recipe, args.data, folder, SEEDS, OPTIONS, runs=args.out / "runs.sqlite")
            print(f"{folder.name}: {time.monotonic() - began:.0f} s since the start", flush=True)


def documents(path: Path) -> list[bytes]:
    return [document for document in lzma.open(path).read().split(b"\0") if document]


if __name__ == "__main__":
    main()
