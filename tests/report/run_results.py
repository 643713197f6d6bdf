"""Small, made-up results for the tests of this folder."""

import json
import math
from pathlib import Path
from typing import Any

NUM_BYTES, NUM_TOKENS = 1_000_000, 280_000


def full_result(bits: float = 1.5, *, recipe: str = "looped", seed: int = 1) -> dict[str, Any]:
    """A run in which every stage was run and every promise kept."""
    nats = bits * math.log(2) * NUM_BYTES

    def stage(worse: float, seconds: float) -> dict[str, float]:
        return {
            "bits_per_byte": bits + worse,
            "nats_per_token": (bits + worse) * math.log(2) * NUM_BYTES / NUM_TOKENS,
            "seconds": seconds,
        }

    probes = {"causality": {"ok": True, "summary": "24 cuts, no change"}}
    return {
        "recipe": recipe,
        "seed": seed,
        "device": "cpu",
        "params": 123_456,
        "train": {"seconds": 58.0, "budget_seconds": 60.0, "steps": 300, "tokens": 614_400},
        "stages": {
            "float": stage(0.03, 1.5),
            "quantized": stage(0.05, 1.25),
            "sliding": stage(0.02, 5.0),
            "ttt": stage(0.0, 20.0),
        },
        "artifact": {
            "bytes_total": 99_000,
            "bytes_model": 90_000,
            "bytes_code": 9_000,
            "bytes_tokenizer": 20_000,
            "cap_bytes": 100_000,
            "sha256": "ab" * 32,
        },
        "score": {
            "bits_per_byte": bits,
            "nats": nats,
            "tokens": NUM_TOKENS,
            "bytes": NUM_BYTES,
        },
        "evaluate": {"seconds": 30.0, "budget_seconds": 60.0},
        "proof": {
            "tokens": 4096,
            "coded_bytes": 2750,
            "coded_bits_per_byte": 1.5043,
            "claimed_bits_per_byte": 1.5041,
            "decoded_equal": True,
        },
        "audit": {"verdict": "legal", "probes": probes},
        "baselines": {
            "xz": {"alone": 2.7, "primed": 2.3},
            "zstd": {"alone": 2.75, "primed": 2.35},
            "ppmd": {"alone": 2.2, "primed": 1.9},
        },
        "chunks": {
            "tokens": [100, 200, 300, 400],
            "bits_per_byte": [1.9, 1.8, 1.7, 1.6],
            "score_seconds": [0.1, 0.11, 0.1, 0.1],
            "learn_seconds": [0.3, 0.3, 0.3, 0.0],
            "frozen_bits_per_byte": [1.9, 1.85, 1.8, 1.78],
            "gain_bits_per_byte": [0.0, 0.1, 0.2, None],
        },
        "curves": {
            "frozen": [[10_000 * i, 1.52] for i in range(1, 101)],
            "learning": [[10_000 * i, 1.52 - 0.0002 * i] for i in range(1, 101)],
        },
    }


def recipe_data(name: str = "looped", parent: str | None = "plain") -> dict[str, Any]:
    return {
        "name": name,
        "parent": parent,
        "claim_bpb": 1.49,
        "model": {"num_blocks": 4, "loop": {"first": 1, "last": 2}},
        "train": {"lr": 0.02},
    }


def write_run(
    folder: Path, result: dict[str, Any], recipe: dict[str, Any] | None = None, steps: int = 40
) -> Path:
    """A run folder with a log of `steps` training steps."""
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps(result))
    (folder / "recipe.json").write_text(json.dumps(recipe or recipe_data(result["recipe"])))
    lines: list[dict[str, Any]] = [{"event": "begin", "stage": "train"}]
    lines += [
        {
            "event": "update",
            "stage": "train",
            "step": step,
            "train_loss": 2 + 3 / step,
            "lr_scale": 1 - step / steps,
        }
        for step in range(1, steps + 1)
    ]
    lines.append({"event": "update", "stage": "evaluate", "done": 5, "loss": 99.0})
    (folder / "train.log").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder
