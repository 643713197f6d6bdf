"""The encoder reads a sample again, otherwise in all that a decoder's machine may differ in.

A margin is worth what it is above the deviations that occur. So before a proof in settled
arithmetic is written, its first tokens are scored in batches here, and in another process token by
token, one row at a time, with another number of threads and the plainest instructions; where logits
or what was learned come apart by more than a tenth of a margin, no proof is written.
"""

import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from fairway.artifact.config_json import config_from_json, config_to_json, plugins_of
from fairway.evaluate.chunks import ChunkPlan, cut_chunk, read_chunks
from fairway.evaluate.config import EvaluateConfig, make_settled_predictor
from fairway.evaluate.ledger import SECOND_MOMENTS, Deviates, Ledger, Margins, Ties
from fairway.evaluate.settled import SettledPredictor
from fairway.model.gpt import GPT
from fairway.model.model_config import ModelConfig
from fairway.proof.bitstream import WalkConfig, fill_in
from fairway.proof.prefix import Prefix, prefix_of
from fairway.proof.reproducible import Checkpoints
from fairway.runtime.plugins import load_plugin
from fairway.runtime.progress import silent
from fairway.runtime.tensor_file import read_tensors, under, write_tensors
from fairway.tokens.val_text import ValText

SAMPLE_TARGETS = 256
SAFETY = 10.0  # times a deviation that a margin must be
PLAIN = {
    "ATEN_CPU_CAPABILITY": "default",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
    "OMP_WAIT_POLICY": "passive",  # no thread takes a core to wait on
}


class Deviation(NamedTuple):
    """Largest differences seen: nats of a logit, and share of a tensor's magnitude."""

    logit: float
    state: float


class Watching(Ledger):
    """A ledger that also keeps what it was given, before it is rounded."""

    def __init__(self, margins: Margins, told: Ties | None = None) -> None:
        super().__init__(margins, told)
        self.logits: dict[int, Tensor] = {}
        self.learned: dict[str, Tensor] = {}  # by the last lesson

    def ends(self, logits: Tensor, positions: Tensor) -> Tensor:
        for position, row in zip(positions.tolist(), logits.cpu(), strict=True):
            self.logits.setdefault(position, row.clone())
        return super().ends(logits, positions)

    def settle(self, state: Mapping[str, Tensor]) -> None:
        self.learned = {
            name: value.detach().cpu().clone()
            for name, value in state.items()
            if value.dtype == torch.float64
        }
        super().settle(state)

    def kept(self, positions: Sequence[int]) -> dict[str, Tensor]:
        logits = torch.stack([self.logits[position] for position in positions])
        return {"logits": logits} | {f"learned/{k}": v for k, v in self.learned.items()}


def seen_deviation(
    model: GPT, config: EvaluateConfig, part: ValText, *, seed: int = 0
) -> Deviation:
    """How far two ways to read the beginning of `part` come apart.

    Raises ValueError where that is more than a tenth of a margin.
    """
    margins, bos_id = config.learner.margins(), model.config.bos_id
    most = min(SAMPLE_TARGETS, part.num_targets)
    prefix = prefix_of(config, part.tokens, bos_id, num_targets=most)
    text = prefix.of(part)
    ledger = Watching(margins)
    predictor = make_settled_predictor(model, config, seed=seed, ledger=ledger)
    for chunk in read_chunks(_plans(prefix, config), text):
        predictor.score(chunk)
        predictor.learn(chunk)
    positions = sorted(ledger.logits)
    other = _read_elsewhere(model, config, prefix, text, ledger, seed)
    if other is None:
        return _judged(Deviation(math.inf, math.inf), margins)
    return _judged(_apart(ledger.kept(positions), other), margins)


def _plans(prefix: Prefix, config: EvaluateConfig) -> list[ChunkPlan]:
    """As if there were a chunk more, so that every one is learned from."""
    plans = prefix.plans(config)
    most = max(prefix.num_chunks, len(plans) + 1)
    return [replace(plan, num_chunks=most) for plan in plans]


def _read_elsewhere(
    model: GPT,
    config: EvaluateConfig,
    prefix: Prefix,
    text: ValText,
    ledger: Ledger,
    seed: int,
) -> dict[str, Tensor] | None:
    """What another process sees; None where it is told of ties that are none there."""
    facts = {
        "model": config_to_json(model.config),
        "evaluate": config_to_json(config),
        "plugins": [plugin.name for plugin in plugins_of(config)],
        "num_tokens": prefix.num_tokens,
        "num_chunks": prefix.num_chunks,
        "starts": list(prefix.starts),
        "seed": seed,
        "loops_active": model.loops_active,
        "threads": 2 if torch.get_num_threads() == 1 else 1,
    }
    tensors = {f"weights/{k}": v.detach().cpu() for k, v in model.shipped_state_dict().items()}
    tensors |= {f"ledger/{k}": v for k, v in ledger.state().items()}
    tensors["tokens"] = text.tokens.long()
    tensors = {name: value.clone().contiguous() for name, value in tensors.items()}
    environment = os.environ | PLAIN | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with tempfile.TemporaryDirectory() as folder:
        job, answer = Path(folder) / "job", Path(folder) / "answer"
        write_tensors(job, tensors, facts)
        command = [sys.executable, "-m", "fairway.proof.guard", str(job), str(answer)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"reading a sample in another process failed: {done.stderr[-2000:]}")
        found, _ = read_tensors(answer, "what another process read")
    return found or None


def _apart(here: Mapping[str, Tensor], there: Mapping[str, Tensor]) -> Deviation:
    logit = float((here["logits"] - there["logits"]).abs().max())
    state = 0.0
    for name, value in under("learned/", here).items():
        other = there[f"learned/{name}"]
        if not SECOND_MOMENTS.isdisjoint(name.split("/")):
            value, other = value.sqrt(), other.sqrt()
        largest = float(value.abs().max()) if value.numel() else 0.0
        if largest:
            span = 2.0 ** math.frexp(0.75 * largest)[1]
            state = max(state, float((value - other).abs().max()) / span)
    return Deviation(logit, state)


def _judged(found: Deviation, margins: Margins) -> Deviation:
    if found.logit * SAFETY > margins.logit or found.state * SAFETY > margins.state:
        raise ValueError(
            f"read in another way, logits differ by {found.logit:.1e} nats and what was learned by "
            f"{found.state:.1e} of its size; settled arithmetic announces within "
            f"{margins.logit:.0e} and {margins.state:.0e} and needs ten times less. Another "
            "machine might not decode this: learn at a lower rate, or set arithmetic='native'"
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
    config = config_from_json(EvaluateConfig, facts["evaluate"])
    starts, tokens = tuple(facts["starts"]), tensors["tokens"]
    prefix = Prefix(
        num_tokens=facts["num_tokens"],
        num_chunks=facts["num_chunks"],
        first_token=int(tokens[0]),
        starts=starts,
    )
    noted = Ledger(config.learner.margins())
    noted.load_state(under("ledger/", tensors))
    ledger = Watching(config.learner.margins(), noted.ties)
    predictor = make_settled_predictor(model.eval(), config, seed=facts["seed"], ledger=ledger)
    try:
        _read_slowly(predictor, prefix, config, tokens)
    except Deviates:
        write_tensors(answer, {}, {})
        return
    write_tensors(answer, ledger.kept(sorted(ledger.logits)), {})


def _read_slowly(
    predictor: SettledPredictor, prefix: Prefix, config: EvaluateConfig, tokens: Tensor
) -> None:
    plans = _plans(prefix, config)
    model = predictor.model.config
    walk = WalkConfig(pad_to=model.train_context, every=1024)
    given, source = prefix.given(model.bos_id), _Told(tokens)
    fill_in(predictor, plans, given, source, Checkpoints(walk.every), walk, silent, batch=1)
    text = ValText(tokens, torch.zeros(len(tokens) - 1, dtype=torch.long), ())
    predictor.learn(cut_chunk(plans[-1], text))


class _Told:
    """A source that knows every token."""

    def __init__(self, tokens: Tensor) -> None:
        self.tokens = tokens

    def take(self, positions: Tensor, given: Tensor) -> Tensor:
        return self.tokens[positions]


if __name__ == "__main__":
    read_sample(Path(sys.argv[1]), Path(sys.argv[2]))
