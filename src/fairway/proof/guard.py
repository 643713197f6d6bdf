"""The encoder reads a sample again, otherwise in all that a decoder's machine may differ in.

A margin is worth what it is above the deviations that occur. So before a proof in settled
arithmetic is written, its beginning is scored in batches and learned from here, and in another
process it is read token by token, one row at a time, with another number of threads and the
plainest instructions, and learned from as well; where logits or what was learned come apart by more
than a tenth of a margin, no proof is written.
"""

import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from fairway.artifact.config_json import config_from_json, config_to_json, plugins_of
from fairway.evaluate.config import EvaluateConfig
from fairway.evaluate.ledger import SECOND_MOMENTS, Deviates, Ledger, Margins
from fairway.model.gpt import GPT
from fairway.model.model_config import ModelConfig
from fairway.proof.prefix import Prefix
from fairway.proof.sample import FEW_TARGETS, READ_TARGETS, Sample, Watching
from fairway.runtime.native import untuned
from fairway.runtime.plugins import load_plugin
from fairway.runtime.strict_json import Json
from fairway.runtime.tensor_file import read_tensors, under, write_tensors
from fairway.tokens.val_text import ValText

SAFETY = 10.0  # times a deviation that a margin must be
PLAIN = {
    "ATEN_CPU_CAPABILITY": "default",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
    "OMP_WAIT_POLICY": "passive",  # no thread takes a core to wait on
}


class Deviation(NamedTuple):
    """Largest differences seen: nats of a logit; share of a tensor's magnitude, of what was learned
    and of gradients, where those are settled."""

    logit: float
    state: float
    gradient: float


class Guard:
    """Another process that reads a sample while this one encodes.

    with Guard(model, config, text) as guard:
        ...
        guard.deviation()
    """

    def __init__(
        self,
        model: GPT,
        config: EvaluateConfig,
        text: ValText,
        *,
        seed: int = 0,
        read_targets: int = READ_TARGETS,
    ) -> None:
        self.margins = config.learner.margins()
        sample = Sample.of(config, text, model.config.bos_id, seed, read_targets)
        ledger = Watching(self.margins)
        sample.score(model, ledger)
        self.here = ledger.seen()
        self.folder = tempfile.TemporaryDirectory()
        job, self.answer, self.problem = (
            Path(self.folder.name) / name for name in ("job", "answer", "problem")
        )
        write_tensors(job, *_job(model, sample, ledger))
        path = os.pathsep.join(filter(None, sys.path))
        with self.problem.open("wb") as problem:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "fairway.proof.guard", str(job), str(self.answer)],
                env=os.environ | PLAIN | {"PYTHONPATH": path},
                stdout=subprocess.DEVNULL,
                stderr=problem,
            )

    def __enter__(self) -> "Guard":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self.folder.cleanup()

    def deviation(self) -> Deviation:
        """How far two ways to read the beginning of the text, and to learn from it, come apart.

        Raises ValueError where that is more than a tenth of a margin.
        """
        if self.process.wait():
            problem = self.problem.read_text(errors="replace")[-2000:]
            raise RuntimeError(f"reading a sample in another process failed: {problem}")
        there, _ = read_tensors(self.answer, "what another process read")
        return _judged(_apart(self.here, there or None), self.margins)


def seen_deviation(
    model: GPT, config: EvaluateConfig, text: ValText, *, seed: int = 0
) -> Deviation:
    """What `Guard` finds, where there is nothing else to do."""
    with Guard(model, config, text, seed=seed) as guard:
        return guard.deviation()


def deviation_here(model: GPT, config: EvaluateConfig, text: ValText) -> Deviation:
    """What a `Guard` finds, from a few tokens and without another process: logits in batches
    against logits token by token. Where nothing is learned, nothing grows from there."""
    margins = config.learner.margins()
    sample = Sample.of(config, text, model.config.bos_id, 0, FEW_TARGETS)
    here = Watching(margins)
    sample.score(model, here)
    there = Watching(margins, here.ties)
    try:
        with untuned():
            sample.read_slowly(model, there)
    except Deviates:
        return _judged(_apart(here.seen(), None), margins)
    return _judged(_apart(here.seen(), there.seen()), margins)


def _job(model: GPT, sample: Sample, ledger: Ledger) -> tuple[dict[str, Tensor], dict[str, Json]]:
    """All that `read_sample` needs, as tensors and facts."""
    config, prefix = sample.config, sample.prefix
    facts: dict[str, Json] = {
        "model": config_to_json(model.config),
        "evaluate": config_to_json(config),
        "plugins": [plugin.name for plugin in plugins_of(config)],
        "num_chunks": prefix.num_chunks,
        "starts": list(prefix.starts),
        "seed": sample.seed,
        "read_targets": sample.read_targets,
        "loops_active": model.loops_active,
        "threads": 2 if torch.get_num_threads() == 1 else 1,
    }
    tensors = {f"weights/{k}": v.detach().cpu() for k, v in model.shipped_state_dict().items()}
    tensors |= {f"ledger/{k}": v for k, v in ledger.state().items()}
    tensors["tokens"] = sample.tokens
    return {name: value.clone().contiguous() for name, value in tensors.items()}, facts


def _apart(here: Mapping[str, Tensor], there: Mapping[str, Tensor] | None) -> Deviation:
    """Over all that the other process saw; as far as can be where it could not go on."""
    if there is None:
        return Deviation(math.inf, math.inf, math.inf)
    most = {"logits": 0.0, "learned": 0.0, "gradients": 0.0}
    for name, other in there.items():
        value, kind = here[name], name.partition("/")[0]
        if not value.numel():
            continue
        if not SECOND_MOMENTS.isdisjoint(name.split("/")):
            value, other = value.sqrt(), other.sqrt()
        # Of either: what is nothing here and something there is settled by its size there.
        largest = 0.0 if kind == "logits" else float(torch.maximum(value.abs(), other.abs()).max())
        span = 2.0 ** math.frexp(0.75 * largest)[1] if largest else 1.0
        most[kind] = max(most[kind], float((value - other).abs().max()) / span)
    return Deviation(most["logits"], most["learned"], most["gradients"])


def _judged(found: Deviation, margins: Margins) -> Deviation:
    beside = {
        "nats in logits": (found.logit, margins.logit),
        "of its size in what was learned": (found.state, margins.state),
        "of its size in a gradient": (found.gradient, margins.gradient),
    }
    beyond = [
        f"{seen:.1e} {what} where {margin:.0e} is announced"
        for what, (seen, margin) in beside.items()
        if margin is not None and seen * SAFETY > margin
    ]
    if beyond:
        raise ValueError(
            f"computed in another way, it differs by {', '.join(beyond)}, which needs ten times "
            "less: another machine might not decode it. Learn at a lower rate or not at all, or "
            "take arithmetic='native'"
        )
    return found


def read_sample(job: Path, answer: Path) -> None:
    """The other process: token by token, one row at a time."""
    tensors, facts = read_tensors(job, "a sample to read")
    torch.set_num_threads(facts["threads"])
    torch.set_float32_matmul_precision("highest")
    for name in facts["plugins"]:
        load_plugin(name)
    model = GPT(config_from_json(ModelConfig, facts["model"]))
    model.load_state_dict(under("weights/", tensors), strict=False)
    model.loops_active = facts["loops_active"]
    tokens = tensors["tokens"]
    prefix = Prefix(
        num_tokens=len(tokens),
        num_chunks=facts["num_chunks"],
        first_token=int(tokens[0]),
        starts=tuple(facts["starts"]),
    )
    config = config_from_json(EvaluateConfig, facts["evaluate"])
    sample = Sample(
        config=config,
        prefix=prefix,
        tokens=tokens,
        seed=facts["seed"],
        read_targets=facts["read_targets"],
    )
    noted = Ledger(config.learner.margins())
    noted.load_state(under("ledger/", tensors))
    ledger = Watching(config.learner.margins(), noted.ties)
    try:
        with untuned():  # which would take this processor's best instructions
            sample.read_slowly(model.eval(), ledger)
    except Deviates:
        write_tensors(answer, {}, {})
        return
    write_tensors(answer, ledger.seen(), {})


if __name__ == "__main__":
    read_sample(Path(sys.argv[1]), Path(sys.argv[2]))
