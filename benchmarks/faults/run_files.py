"""The files of a run folder that a later start believes: descriptions, result, checkpoint."""

import hashlib
from dataclasses import replace
from pathlib import Path

import torch
from kinds import Sample

from fairway.pipeline.story import RunOptions, train
from fairway.pipeline.training import load_trained
from fairway.recipes.registry import recipe, smoke
from fairway.report.run_folder import read_run
from fairway.result import RunResult, ScoreResult, StageResult, TrainResult, write_result

RECIPE = smoke(recipe("naive_baseline"), vocab_size=290, steps=2)


def run_samples(folder: Path, data: Path) -> list[Sample]:
    """data  a data folder of 290 pieces"""
    options = RunOptions(compute_dtype="float32", threads=1)
    train(RECIPE, data, folder, options)
    write_result(folder, _result())
    trained = [("run.json", _trained), ("recipe.json", _trained), ("checkpoint", _trained)]
    names = {"checkpoint": "checkpoint.safetensors"}
    kinds = [*trained, ("result.json", _result_of), ("recipe.json of a page", _result_of)]
    names["recipe.json of a page"] = "recipe.json"
    return [Sample(kind, folder, names.get(kind, kind), read) for kind, read in kinds]


def _result() -> RunResult:
    stage = StageResult(bits_per_byte=1.25, nats_per_token=2.5, seconds=3.0)
    return RunResult(
        recipe=RECIPE.name,
        seed=1,
        device="a machine",
        params=12345,
        data={"val_000000.bin": "0" * 64},
        train=TrainResult(seconds=1.5, steps=2, tokens=64),
        stages={"float": stage, "ttt": replace(stage, bits_per_byte=1.125)},
        score=ScoreResult(bits_per_byte=1.125, nats=77.5, tokens=31, bytes=99),
        curves={"frozen": ((10, 2.5), (99, 1.25))},
    )


def _trained(folder: Path) -> str:
    chosen, model = load_trained(folder, torch.device("cpu"))
    digest = hashlib.sha256(repr(chosen).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode() + tensor.numpy().tobytes())
    return digest.hexdigest()


def _result_of(folder: Path) -> str:
    found = read_run(folder)
    return hashlib.sha256(repr((found.result, found.recipe, found.curve)).encode()).hexdigest()
