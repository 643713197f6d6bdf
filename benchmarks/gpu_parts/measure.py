"""One part of `benchmarks/gpu.sh`: measures, and writes OUT/part-N.json; `table` puts all together.

With --dry the same code runs on a CPU with miniatures of the recipes: it shows that the code runs,
and nothing about speed.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from measuring.rows import Row, machine_name
from measuring.small_run import given_or_small_data
from torch import Tensor

from fairway.evaluate.chunks import cut_chunk
from fairway.evaluate.config import make_predictor, plan_text
from fairway.evaluate.learners.sgd import Sgd
from fairway.model.flops import flops_per_token
from fairway.model.gpt import GPT
from fairway.recipes.recipe import Recipe
from fairway.recipes.registry import recipe, smoke
from fairway.runtime.attention_backend import choose_attention_backend
from fairway.runtime.device import seed_everything
from fairway.runtime.kernel_choice import choose_kernels
from fairway.tokens.val_text import ValText
from fairway.train.clock import StepClock
from fairway.train.compiled import compile_loss
from fairway.train.loop import training_steps
from fairway.train.param_groups import build_optimizers

ROOT = Path(__file__).parents[2]
PEAKS = {"H100": 989.0, "H200": 989.0, "A100": 312.0, "B200": 2250.0}  # dense bfloat16, TFLOP/s
RECIPES = ("pr1413", "pr2135")
FIELD_MS = {"pr1413": 115.7, "pr2135": 120.1}  # published, 98,304 tokens a step, loop on


class Here:
    """Where this runs, and how large what runs is."""

    def __init__(self, dry: bool) -> None:
        if not dry and not torch.cuda.is_available():
            raise SystemExit("gpu.sh needs a CUDA device; --dry runs its code on a CPU")
        self.dry = dry
        self.device = torch.device("cpu" if dry else "cuda")
        if not dry and not torch.cuda.is_bf16_supported(including_emulation=False):
            raise SystemExit(f"{torch.cuda.get_device_name()} has no bfloat16; it needs sm_80")
        self.dtype = torch.float32 if dry else torch.bfloat16

    def recipe(self, name: str) -> Recipe:
        chosen = recipe(name)
        chosen = smoke(chosen) if self.dry else chosen
        batch = replace(chosen.train.batch, micro_batches=1, micro_batch_ramp=None)
        train = replace(chosen.train, batch=batch, seconds=None, steps=1000, reserve_seconds=0.0)
        return replace(chosen, train=replace(train, loops_at=None))

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def seconds(self, work: Callable[[], object]) -> float:
        self.wait()
        begin = time.perf_counter()
        work()
        self.wait()
        return time.perf_counter() - begin

    @property
    def peak(self) -> float | None:
        """FLOP/s of dense products, where it is known."""
        name = "" if self.dry else torch.cuda.get_device_name()
        return next((1e12 * rate for part, rate in PEAKS.items() if part in name), None)


def random_batches(chosen: Recipe, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    batch = chosen.train.batch
    tokens = torch.randint(2, chosen.model.vocab_size, (batch.rows, batch.context + 1))
    tokens = tokens.to(device)
    while True:
        yield tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()


def tests(here: Here) -> list[Row]:
    """The tests that need a GPU; in a dry run, those that stand in for them on a CPU."""
    where = ["tests/runtime/test_kernel_choice.py"] if here.dry else ["-m", "gpu"]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *where]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    said = (done.stdout.strip().splitlines() or [done.stderr[-200:]])[-1]
    passed = done.returncode == 0
    _, kernels = choose_kernels(here.device)
    backend = choose_attention_backend(here.device, here.dtype, None)
    return [
        {"name": "tests that need a GPU", "passed": passed, "said": said},
        {"name": "kernels", "said": kernels},
        {"name": "attention", "said": f"{backend.name}: {backend.reason}"},
    ]


def steps(here: Here) -> list[Row]:
    """Milliseconds, memory and share of the peak of a step, with the loop off and on."""
    rows: list[Row] = []
    for name in RECIPES:
        for active in (False, True):
            rows.append(one_step(here, name, active))
            print(json.dumps(rows[-1]), flush=True)
    return rows


def one_step(here: Here, name: str, active: bool) -> Row:
    seed_everything(0)
    chosen = here.recipe(name)
    batch, config = chosen.train.batch, chosen.train
    model = GPT(chosen.model).to(here.device).train()
    model.loops_active = active
    switch, _ = choose_kernels(here.device)
    backend = choose_attention_backend(here.device, here.dtype, None)
    if here.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    with backend.active(), switch():
        begin = time.perf_counter()
        if not here.dry:
            model.loss = compile_loss(  # type: ignore[method-assign]
                model, batch.rows, batch.context, here.dtype, {active}
            )
        compiling = time.perf_counter() - begin
        optimizers = build_optimizers(model, config.optimizer, muon_dtype=here.dtype)
        walk = training_steps(
            model,
            random_batches(chosen, here.device),
            config,
            optimizers,
            StepClock(1000),
            compute_dtype=here.dtype,
        )
        for _ in range(2 if here.dry else 5):
            next(walk)
        count = 2 if here.dry else 20
        seconds = here.seconds(lambda: [next(walk) for _ in range(count)]) / count
    tokens = batch.rows * batch.context
    row: Row = {
        "name": f"{name}, loop {'on' if active else 'off'}",
        "tokens_per_step": tokens,
        "milliseconds": 1000 * seconds,
        "compile_seconds": compiling,
        "tflops": flops_per_token(model, batch.context) * tokens / seconds / 1e12,
    }
    if active and not here.dry:
        row["published_milliseconds"] = FIELD_MS[name]
    if here.peak is not None:
        row["share_of_peak"] = 1e12 * float(row["tflops"]) / here.peak
    if here.device.type == "cuda":
        row["memory_gib"] = torch.cuda.max_memory_allocated() / 2**30
    return row


def scoring(here: Here) -> list[Row]:
    """Sliding scores and learning of an untrained model, in seconds for a million tokens."""
    rows: list[Row] = []
    for name in RECIPES:
        chosen = here.recipe(name)
        model = GPT(chosen.model).to(here.device)
        count = 2_000 if here.dry else 400_000
        tokens = torch.randint(2, chosen.model.vocab_size, (count,))
        tokens[:: 500 if here.dry else 2000] = chosen.model.bos_id
        starts = tuple((tokens == chosen.model.bos_id).nonzero()[:, 0].tolist())
        text = ValText(tokens, torch.ones(count - 1, dtype=torch.long), starts)
        frozen = chosen.evaluate.frozen()
        ways = [("sliding", frozen), ("its own learning", chosen.evaluate)]
        if isinstance(ttt := chosen.evaluate.ttt, Sgd):
            graphs = replace(chosen.evaluate, ttt=replace(ttt, graphed=True))
            ways.append(("its own learning as CUDA graphs", graphs))
        for what, config in ways:
            config = config.resolved(chosen.model.train_context)
            predictor = make_predictor(model, config)
            plans = plan_text(config, text)[:3]

            def walk(predictor=predictor, plans=plans, text=text) -> None:
                for plan in plans:
                    chunk = cut_chunk(plan, text)
                    predictor.score(chunk)
                    predictor.learn(chunk)

            seconds = here.seconds(walk)
            scored = sum(plan.num_targets for plan in plans)
            rows.append(
                {
                    "name": f"{name}, {what}",
                    "tokens": scored,
                    "seconds_per_million_tokens": 1e6 * seconds / scored,
                }
            )
            print(json.dumps(rows[-1]), flush=True)
    return rows


def proxy(here: Here, data: Path | None) -> list[Row]:
    """Seconds from a process' start to its first step, and a run on the clock."""
    rows: list[Row] = []
    name = "pocket" if here.dry or data is None else "pr1413"
    seconds = 6 if here.dry else 180
    with tempfile.TemporaryDirectory() as folder, given_or_small_data(data) as corpus:
        run = Path(folder) / "run"
        command = [sys.executable, "-m", "fairway", "train", name, str(corpus), "--out", str(run)]
        command += ["--train.seconds", str(seconds)]
        begin = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        first, log = None, run / "train.log"
        while process.poll() is None:
            if first is None and log.is_file() and '"train_loss"' in log.read_text():
                first = time.perf_counter() - begin
            time.sleep(0.1)
        said = process.stderr.read().decode()[-300:] if process.stderr else ""
        if process.returncode:
            raise SystemExit(f"{' '.join(command)} failed: {said}")
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        losses = [line for line in lines if "train_loss" in line]
        rows.append(
            {
                "name": f"{name} for {seconds} s on {corpus.name}",
                "seconds_to_first_step": first if first is not None else -1.0,
                "steps": losses[-1]["step"],
                "train_loss": losses[-1]["train_loss"],
                "tokens_per_second": losses[-1]["tokens_per_second"],
            }
        )
    return rows


def table(out: Path, dry: bool) -> str:
    """All parts as Markdown; a part that was not run says so."""
    lines = [f"# Measured on {machine_name()}{', a dry run' * dry}", "", "| | |", "|---|---|"]
    for part in "1234":
        path = out / f"part-{part}.json"
        if not path.is_file():
            lines.append(f"| part {part} | not measured |")
            continue
        for row in json.loads(path.read_text())["rows"]:
            told = ", ".join(
                f"{key} {value:,.4g}" if isinstance(value, float) else f"{key} {value}"
                for key, value in row.items()
                if key != "name"
            )
            lines.append(f"| {row['name']} | {told} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=["1", "2", "3", "4", "table"])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--dry", action="store_true")
    args = parser.parse_args()
    if args.part == "table":
        (args.out / "table.md").write_text(table(args.out, args.dry))
        print(table(args.out, args.dry))
        return
    here = Here(args.dry)
    parts = {"1": tests, "2": steps, "3": scoring, "4": lambda here: proxy(here, args.data)}
    begin = time.perf_counter()
    rows = parts[args.part](here)
    found = {"machine": machine_name(), "seconds": time.perf_counter() - begin, "rows": rows}
    (args.out / f"part-{args.part}.json").write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
