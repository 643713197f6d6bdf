"""The script does what the run did, with nothing of the package, and keeps within its bytes."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest

from fairway.pipeline.packing import header_of
from fairway.recipes.diff import override
from fairway.recipes.registry import RECIPES, recipe
from fairway.result import read_result
from fairway.submission.figures import SAME_DEVICE
from fairway.submission.script import (
    SCRIPT,
    make_script,
    minified,
    pack_source,
    readable_source,
    unpack_script,
)
from fairway.submission.settled import Settled
from fairway.tokens.shards import DataFolder

from .conftest import Run, tiny

BLOCKED = (
    "import sys, runpy; sys.modules.update(dict.fromkeys({!r})); sys.argv[:] = sys.argv[1:]; "
    "runpy.run_path({!r}, run_name='__main__')"
)


def started(
    script: Path,
    data: Path,
    seed: int,
    *arguments: str,
    blocked: Collection[str] = (),
    more: Mapping[str, str] | None = None,
) -> dict:
    """What a process without the package, and without others, prints last; nothing: {}.

    more  of its environment
    """
    known = {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [
            sys.executable,
            "-I",
            "-c",
            BLOCKED.format(["fairway", *sorted(blocked)], str(script)),
            script.name,
            *arguments,
        ],
        env={**known, "DATA_PATH": str(data), "SEED": str(seed), **(more or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads((done.stdout.splitlines() or ["{}"])[-1])


def as_published(name: str) -> Settled:
    """The run of a recipe on a GPU, with the tokenizer that the field published."""
    chosen = recipe(name)
    evaluate = chosen.evaluate.resolved(chosen.model.train_context, "bfloat16", True)
    return Settled(
        recipe=chosen,
        evaluate=evaluate,
        header=header_of(chosen, evaluate),
        compute_dtype="bfloat16",
        compiled=True,
        device="cuda",
        tokenizer="sentencepiece",
        transform=chosen.tokens.transform,
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_it_trains_and_scores_as_the_run_did(
    name: str, song: DataFolder, run: Run, tmp_path: Path
) -> None:
    chosen = tiny(name)
    out = run(chosen, tmp_path / "run")
    result, script, artifact = read_result(out), out / SCRIPT, (out / "model.fwy").read_bytes()
    (out / f"model_seed{chosen.seed}.fwy").write_bytes(artifact)
    for arguments in (["--eval"], []):
        found = started(script, song.path, chosen.seed, *arguments)
        assert result.score is not None
        assert (found["nats"], found["bytes"]) == (result.score.nats, result.score.bytes)
        assert found["val_bpb"] == result.score.bits_per_byte
        assert found["code_bytes"] == result.score.code_bytes
    assert (out / f"retrained_seed{chosen.seed}.fwy").read_bytes() == artifact
    assert result.artifact is not None
    assert result.artifact.bytes_total == len(artifact) + script.stat().st_size


@pytest.mark.slow
def test_on_two_ranks_it_does_what_the_run_did_on_one(
    song: DataFolder, run: Run, tmp_path: Path
) -> None:
    """As torchrun starts it, a micro-batch on each rank. Which of two roundings a weight takes may
    hang on the order in which ranks add up what calibration saw."""
    chosen = override(tiny("pr1413"), {"train.batch.micro_batches": 2})
    out = run(chosen, tmp_path / "run")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    ranks = [{"RANK": n, "LOCAL_RANK": n, "WORLD_SIZE": "2"} for n in ("0", "1")]
    with ThreadPoolExecutor() as pool:
        both = pool.map(
            lambda rank: started(out / SCRIPT, song.path, chosen.seed, more=rank | meeting), ranks
        )
        found = next(both)
        assert next(both) == {}  # the first one speaks for both
    score = read_result(out).score
    assert score is not None
    assert found["bytes"] == score.bytes
    assert found["nats"] == pytest.approx(score.nats, rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("arithmetic", ["settled", "native"])
def test_it_scores_as_a_run_with_kernels_did(
    arithmetic: Literal["settled", "native"], song: DataFolder, run: Run, tmp_path: Path
) -> None:
    """Settled, to the last digit, for no kernel takes part; native, as near as `check` asks."""
    chosen = tiny()
    chosen = replace(chosen, evaluate=replace(chosen.evaluate, arithmetic=arithmetic))
    out = run(chosen, tmp_path / "run", plain=False)
    (out / f"model_seed{chosen.seed}.fwy").write_bytes((out / "model.fwy").read_bytes())
    found, score = started(out / SCRIPT, song.path, chosen.seed, "--eval"), read_result(out).score
    assert score is not None
    if arithmetic == "settled":
        assert score.code_bytes
        assert (found["val_bpb"], found["code_bytes"]) == (score.bits_per_byte, score.code_bytes)
    else:
        assert found["nats"] == pytest.approx(score.nats, rel=SAME_DEVICE)


@pytest.mark.slow
def test_it_learns_from_what_the_run_learned_from(
    song: DataFolder, run: Run, tmp_path: Path
) -> None:
    """A run whose clock left time for two lessons is scored again with these two, however fast."""
    chosen = tiny()
    out = run(chosen, tmp_path / "run")
    (out / f"model_seed{chosen.seed}.fwy").write_bytes((out / "model.fwy").read_bytes())
    assert started(out / SCRIPT, song.path, chosen.seed, "--eval")["lessons"] > 2
    result = json.loads((out / "result.json").read_bytes())
    result["evaluate"]["learned"] = [[0, 1], [2, 3]]
    (out / f"result_seed{chosen.seed}.json").write_text(json.dumps(result))
    assert started(out / SCRIPT, song.path, chosen.seed, "--eval")["lessons"] == 2


@pytest.mark.slow
@pytest.mark.parametrize(("name", "most"), [("pr1413", 40_000), ("pr2135", 48_000)])
def test_the_code_of_a_record_keeps_within_its_bytes(name: str, most: int) -> None:
    assert len(pack_source(minified(readable_source(as_published(name))))) <= most


@pytest.mark.slow
def test_the_same_run_gives_the_same_bytes_whatever_its_seed() -> None:
    settled = as_published("naive_baseline")
    other = replace(settled, recipe=replace(settled.recipe, seed=42))
    assert readable_source(settled) == readable_source(other)
    assert make_script(settled) == make_script(other)


def test_what_is_packed_comes_back() -> None:
    assert unpack_script(pack_source("x = 'y'\n" * 100)) == "x = 'y'\n" * 100


@pytest.mark.parametrize("script", [b"", b"print(1)", pack_source("x")[:-9] + b"')))\n"])
def test_what_is_no_packed_script_is_refused(script: bytes) -> None:
    with pytest.raises(ValueError, match=r"it is no script|does not unpack"):
        unpack_script(script)
