"""What evaluation costs and what learning at test time is worth, on one run's model. By hand.

    python benchmarks/evaluate.py runs/pocket runs/pocket/data --out evaluate.json

Without a run and its data it makes a small one to measure. Speeds are ratios of alternating runs in
one process (the faster of each side's repeats), against `peers/published.py`, which does what the
published scripts do. `--vectors` names the folder of the golden vectors; without it that line is
left out, and said so.
"""

import argparse
import copy
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from measuring.rows import Row, show
from measuring.small_run import given_or_small_run
from peers import published
from torch import Tensor

from fairway.artifact.loaded_model import load_model
from fairway.evaluate.chunks import Chunk, cut_chunk, plan_chunks
from fairway.evaluate.config import EvaluateConfig, make_predictor, plan_text
from fairway.evaluate.frozen import Frozen
from fairway.evaluate.learner import Precision
from fairway.evaluate.learners.documents import DocumentAdapters
from fairway.evaluate.learners.mixture import Mixture
from fairway.evaluate.learners.phased import Phased
from fairway.evaluate.learners.sgd import Sgd, SgdPredictor
from fairway.evaluate.timed import Evaluation, evaluate_in_time
from fairway.interop.published_weights import load_checkpoint
from fairway.model.adapters import AdapterConfig
from fairway.model.gpt import GPT
from fairway.proof.prove import evaluation_of
from fairway.report.style import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PALE,
    Line,
    draw_lines,
    line_figure,
    style,
)
from fairway.runtime.device import choose_compute_dtype, machine
from fairway.tokens.shards import DataFolder
from fairway.tokens.val_text import ValText

POINTS = 200  # of a curve


@dataclass(frozen=True)
class Extent:
    """How much is measured.

    tokens        of the text, for what learning is worth; None takes all
    only          names of the ways to learn; None takes all
    speed_tokens  of the text, for speeds
    repeats       of each side of a comparison
    strides       of sliding windows, as parts of the model's training context
    long_context  windows of 1,024 tokens besides
    precisions    of learning on weights
    compiled      learning through torch.compile too, which takes half a minute for each precision
    """

    tokens: int | None = None
    only: Sequence[str] | None = None
    speed_tokens: int = 16_385
    repeats: int = 3
    strides: tuple[int, ...] = (4, 16)
    long_context: bool = True
    precisions: tuple[Precision, ...] = ("float32", "bfloat16")
    compiled: bool = True


BRIEF = Extent(
    tokens=2049,
    only=("SGD", "adapters per document", "mixture"),
    speed_tokens=2049,
    repeats=1,
    strides=(4,),
    long_context=False,
    precisions=("float32",),
    compiled=False,
)


@dataclass
class Findings:
    """What `--out` writes: rows of speed and of gain, and running scores by way to learn."""

    tokens: int
    speed: list[Row] = field(default_factory=list)
    learning: list[Row] = field(default_factory=list)
    curves: dict[str, list[float]] = field(default_factory=dict)


def fastest(repeats: int, *sides: Callable[[], object]) -> list[float]:
    """Seconds of each side's fastest run, the sides taking turns."""
    seconds: list[list[float]] = [[] for _ in sides]
    for _ in range(repeats):
        for side, found in zip(sides, seconds, strict=True):
            begin = time.perf_counter()
            side()
            found.append(time.perf_counter() - begin)
    return [min(found) for found in seconds]


def same_as_published(vectors: Path) -> Row:
    """Our sliding score of #1413's golden vector, and its own."""
    vector = torch.load(vectors / "eval_pr1413.pt", weights_only=True)
    config, tokens = vector["config"], vector["tokens"]
    model = load_checkpoint("pr1413", config, vector["state_dict"])
    names = ("EVAL_SEQ_LEN", "EVAL_STRIDE", "TTT_CHUNK_TOKENS")
    context, stride, chunk_tokens = (int(config[name]) for name in names)
    plans = plan_chunks(len(tokens), context, stride, chunk_tokens)
    text = ValText(tokens, torch.ones(len(tokens) - 1, dtype=torch.long), ())
    ours = evaluate_in_time(Frozen(model), plans, text).score.nats_per_token
    theirs = float(vector["sliding"]["val_loss"])
    return show("golden vector, sliding", ours=ours, published=theirs, gap=abs(ours - theirs))


def scoring_speed(model: GPT, text: ValText, context: int, stride: int, repeats: int) -> list[Row]:
    """Exact and cached sliding windows against the published way, at one context and stride."""
    config = EvaluateConfig(context=context, stride=stride, rows=32)
    plans = plan_text(config, text)
    cached = replace(config, cached=16)
    fast = replace(cached, precision="bfloat16")

    def ours(chosen: EvaluateConfig) -> Evaluation:
        return evaluate_in_time(make_predictor(model, chosen), plans, text)

    seconds = fastest(
        repeats,
        lambda: published.score(model, text.tokens, plans),
        lambda: ours(config),
        lambda: ours(cached),
        lambda: ours(fast),
    )
    nats = published.score(model, text.tokens, plans)
    exact, approximate, rounded = (ours(chosen).score for chosen in (config, cached, fast))
    place = f"context {context}, stride {stride}"
    return [
        show(
            f"sliding, {place}",
            published_seconds=seconds[0],
            our_seconds=seconds[1],
            times_as_fast=seconds[0] / seconds[1],
            gap_nats_per_token=abs(float(nats.mean()) - exact.nats_per_token),
        ),
        show(
            f"sliding with cached keys (approximate), {place}",
            our_seconds=seconds[2],
            times_as_fast=seconds[0] / seconds[2],
            bits_per_byte=approximate.bits_per_byte,
            deviation_bits_per_byte=approximate.bits_per_byte - exact.bits_per_byte,
        ),
        show(
            f"the same in bfloat16 (approximate), {place}",
            our_seconds=seconds[3],
            times_as_fast=seconds[0] / seconds[3],
            bits_per_byte=rounded.bits_per_byte,
            deviation_bits_per_byte=rounded.bits_per_byte - exact.bits_per_byte,
        ),
    ]


def learning_speed(model: GPT, text: ValText, context: int, sgd: Sgd, extent: Extent) -> list[Row]:
    """Tokens a second of learning epochs, ours against the published loop."""
    chunk_tokens = max(sgd.chunk_tokens, 4 * context)
    plan = plan_chunks(min(len(text.tokens), 2 * chunk_tokens + 1), context, context, chunk_tokens)
    chunk = cut_chunk(plan[0], text)
    theirs = copy.deepcopy(model)
    optimizer = torch.optim.SGD(theirs.parameters(), lr=sgd.lr, momentum=sgd.momentum)
    sgd = replace(sgd, chunk_tokens=chunk_tokens)

    def as_published() -> None:
        published.learn(
            theirs,
            optimizer,
            chunk,
            context=context,
            epochs=sgd.epochs,
            batch_sequences=sgd.batch_sequences,
            precision=sgd.precision,
        )

    rows = []
    for compiled in (False, True) if extent.compiled else (False,):
        begin = time.perf_counter()
        ours = SgdPredictor(model, replace(sgd, compiled=compiled), context=context)
        making = time.perf_counter() - begin
        seconds = fastest(extent.repeats, as_published, lambda ours=ours: ours.learn(chunk))
        rates = [sgd.epochs * chunk_tokens / each for each in seconds]
        row = show(
            f"learning epochs in {sgd.precision}{', compiled' if compiled else ''}",
            seconds_to_begin=making,
            published_tokens_per_second=rates[0],
            our_tokens_per_second=rates[1],
            times_as_fast=rates[1] / rates[0],
        )
        rows.append(row)
    return rows


def family(
    chosen: EvaluateConfig, num_documents: int, precision: Precision
) -> dict[str, EvaluateConfig]:
    """Every way to learn, at settings that suit a small model; the run's own comes last."""
    frozen = replace(chosen, ttt=None, mixture=None, cached=None)
    context = frozen.context or 256
    sgd = Sgd(chunk_tokens=4 * context, epochs=3, lr=0.01, batch_sequences=4, precision=precision)
    muon = replace(sgd, optimizer="muon", lr=0.002)
    adapters = DocumentAdapters(
        adapters=AdapterConfig(rank=8, alpha=16.0, targets=("query", "value", "mlp", "head")),
        lr=0.003,
    )
    pauses = tuple(sorted({max(1, num_documents // 4), max(1, num_documents // 2)}))
    phased = Phased(pauses=pauses, adapters=adapters, sgd=replace(sgd, epochs=1))
    documents = replace(frozen, documents=True)
    return {
        "frozen": frozen,
        "controls only": replace(frozen, ttt=replace(sgd, trained="controls", lr=0.05)),
        "SGD": replace(frozen, ttt=sgd),
        "AdamW": replace(frozen, ttt=replace(sgd, optimizer="adamw", lr=3e-4)),
        "Muon": replace(frozen, ttt=muon),
        "adapters per document": replace(documents, ttt=adapters),
        "phased, with adapters": replace(documents, ttt=phased),
        "mixture": replace(frozen, mixture=Mixture()),
        "SGD and mixture": replace(frozen, ttt=sgd, mixture=Mixture()),
        "Muon and mixture": replace(frozen, ttt=muon, mixture=Mixture()),
        # Few documents in step: the mixture learns from all of them only after the stride.
        "adapters and mixture": replace(documents, rows=8, ttt=adapters, mixture=Mixture()),
        "the run's own": chosen,
    }


def learning_gain(
    model: GPT, text: ValText, chosen: EvaluateConfig, only: Sequence[str] | None
) -> tuple[list[Row], dict[str, list[float]]]:
    """Bits per byte of every way to learn, below the frozen sliding score; and their curves."""
    rows: list[Row] = []
    curves: dict[str, list[float]] = {}
    frozen_score = 0.0
    dtype, reason = choose_compute_dtype(torch.device("cpu"))
    print(f"learning on weights in {str(dtype).removeprefix('torch.')}: {reason}")
    fast: Precision = "bfloat16" if dtype == torch.bfloat16 else "float32"
    for name, config in family(chosen, len(text.document_starts), fast).items():
        if only is not None and name not in ("frozen", *only):
            continue
        by_position = torch.zeros(len(text.tokens) - 1, dtype=torch.float64)

        def book(chunk: Chunk, nats: Tensor, into: Tensor = by_position) -> None:
            for window, offset in zip(chunk.plan.windows, chunk.plan.offsets, strict=False):
                scored = nats[offset : offset + window.num_targets]
                into[window.score_from - 1 : window.stop - 1] = scored

        found = evaluate_in_time(
            make_predictor(model, config), plan_text(config, text), text, on_chunk=book
        )
        bits = found.score.bits_per_byte
        frozen_score = bits if name == "frozen" else frozen_score
        gain = frozen_score - bits
        rows.append(show(name, bits_per_byte=bits, gain=gain, seconds=found.seconds))
        # In the order of the text: ways to learn differ in what they score side by side.
        running = by_position.cumsum(0) / math.log(2) / text.target_bytes.cumsum(0).clamp(min=1)
        curves[name] = running[:: max(1, len(running) // POINTS)].tolist()
    return rows, curves


def draw(curves: dict[str, list[float]], num_tokens: int, out: Path) -> None:
    """Running bits per byte of every way to learn, below that of the frozen model."""
    frozen = np.array(curves["frozen"])
    thousands = np.linspace(0, num_tokens / 1000, len(frozen))
    late = len(frozen) // 10  # before that a running mean says nothing
    colours = {"controls": PALE, "SGD": BLUE, "AdamW": ORANGE, "Muon": GREEN, "adapters": INK}
    with style():
        figure, (axes,) = line_figure("Bits per byte so far, against the frozen model", 4.8)
        lines = []
        for name, curve in curves.items():
            if name in ("frozen", "the run's own"):
                continue
            colour = colours.get(name.split()[0], GREY)
            below = np.array(curve) - frozen
            text = f"{name} {below[-1]:+.3f}"
            lines.append(Line(list(thousands[late:]), list(below[late:]), text, colour))
        draw_lines(axes, lines, gap=0.05)
        for line, drawn in zip(lines, axes.get_lines(), strict=True):
            drawn.set_linestyle("--" if "mixture" in line.text else "-")
        axes.set_xlabel("thousand tokens of the text; dashed: with the mixture")
        axes.set_xlim(0, thousands[-1])
        axes.grid(axis="y")
        out.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(out, facecolor="white", metadata={"Date": None})


def speeds(model: GPT, text: ValText, extent: Extent) -> list[Row]:
    """Of scoring and of learning, on the beginning of the text."""
    short, context = text.first(extent.speed_tokens - 1), model.config.train_context
    places = [(context, context // part) for part in extent.strides]
    places += [(1024, 64)] if extent.long_context else []
    rows = []
    for length, stride in places:
        rows += scoring_speed(model, short, length, stride, extent.repeats)
    return rows + epochs_of_each_type(model, short, extent)


def epochs_of_each_type(model: GPT, text: ValText, extent: Extent) -> list[Row]:
    """`learning_speed` in every precision."""
    context, rows = model.config.train_context, []
    for precision in extent.precisions:
        sgd = Sgd(chunk_tokens=4 * context, epochs=3, lr=0.01, batch_sequences=4)
        rows += learning_speed(model, text, context, replace(sgd, precision=precision), extent)
    return rows


def measure(run: Path, folder: Path, extent: Extent, vectors: Path | None) -> Findings:
    loaded = load_model(run / "model.fwy")
    model = loaded.model
    chosen = evaluation_of(loaded).resolved(model.config.train_context)
    text = ValText.of(DataFolder(folder), extent.tokens)
    found = Findings(tokens=len(text.tokens))
    if vectors is None:
        print("golden vector: left out, --vectors names no folder")
    else:
        found.speed.append(same_as_published(vectors))
    found.speed += speeds(model, text, extent)
    found.learning, found.curves = learning_gain(model, text, chosen, extent.only)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, nargs="?")
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--tokens", type=int, help="of the text, for what learning is worth")
    parser.add_argument("--vectors", type=Path)
    parser.add_argument("--only", nargs="*", help="names of the ways to learn; all when absent")
    parser.add_argument("--out", type=Path, help="JSON of all that was found")
    parser.add_argument("--picture", type=Path, help=".svg or .png of the learning curves")
    parser.add_argument("--epochs", action="store_true", help="speed of learning epochs alone")
    parser.add_argument("--brief", action="store_true", help="few tokens, three ways to learn")
    args = parser.parse_args()
    extent = BRIEF if args.brief else Extent(tokens=args.tokens, only=args.only)
    with given_or_small_run(args.run, args.data) as (run, data):
        if args.epochs:
            model = load_model(run / "model.fwy").model
            text = ValText.of(DataFolder(data), 8193)
            wanted = replace(Extent(), compiled=False, repeats=2)
            epochs_of_each_type(model, text, wanted)
            return
        found = measure(run, data, extent, args.vectors)
    if args.out is not None:
        args.out.write_text(json.dumps({"machine": machine().to_json(), **asdict(found)}, indent=1))
    if args.picture is not None:
        draw(found.curves, found.tokens, args.picture)


if __name__ == "__main__":
    main()
