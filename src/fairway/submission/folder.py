"""The folder that is handed in: one script, and for each seed its log, model, result and proof.

Field names of `submission.json` are those of openai/parameter-golf's record folders. Whatever the
folder says is copied from run folders that agree with one another, or nothing is written.
"""

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from fairway.artifact.config_json import config_from_json
from fairway.artifact.container import unpack
from fairway.evaluate.config import EvaluateConfig
from fairway.recipes.recipe import Recipe
from fairway.result import MOST_RESULT, RESULT, RunResult
from fairway.runs.database import DATABASE, RunsDatabase
from fairway.runs.description import MOST_DESCRIPTION, RECIPE, RUN, read_recipe
from fairway.runs.groups import Group, group_runs
from fairway.runs.record import ARTIFACT, RunRecord, require_own_artifact
from fairway.runtime.files import atomic_write, file_sha256, read_file, whole_folder
from fairway.runtime.identity import unsealed
from fairway.runtime.setup import LOG
from fairway.runtime.strict_json import JsonObject, json_object, parse_json
from fairway.submission.script import SCRIPT, make_script, unpack_script
from fairway.submission.settled import Settled
from fairway.tokens.tokenizer import load_tokenizer

SUBMISSION, README, REQUIREMENTS = "submission.json", "README.md", "requirements.txt"
PROOF, CERTIFICATE = "proof.fwp", "certificate.json"
MOST_LOG = 1 << 28  # bytes
# What is copied from a run folder, and whether a folder without it can be handed in.
COPIED = {
    LOG: True, ARTIFACT: True, RESULT: True, RUN: True, RECIPE: True, PROOF: False,
    CERTIFICATE: False,
}  # fmt: skip
PACKAGES = {  # by the name that a script imports
    "torch": "torch",
    "numpy": "numpy",
    "constriction": "constriction",
    "brotli": "brotli",
    "zstandard": "zstandard",
    "sentencepiece": "sentencepiece",
    "google": "protobuf",
    "safetensors": "safetensors",
}


@dataclass(frozen=True, kw_only=True)
class About:
    """What only the author knows.

    Attributes:
        author: who hands it in
        github_id: account at GitHub
        title: of the submission; by default the recipe's name
        blurb: what is new, in a sentence
        track: the list that it is for
    """

    author: str = ""
    github_id: str = ""
    title: str = ""
    blurb: str = ""
    track: str = "10min_16mb"


def seed_name(name: str, seed: int) -> str:
    """
    >>> seed_name("train.log", 42)
    'train_seed42.log'
    """
    stem, dot, end = name.rpartition(".")
    return f"{stem}_seed{seed}{dot}{end}"


def submit(runs: Sequence[Path], out: Path, about: About, *, overwrite: bool = False) -> JsonObject:
    """Write the folder `out`, whole or not at all; returns its `submission.json`.

    Raises ValueError where the runs are not seeds of one thing, one is unfinished or not what its
    folder says, or `out` is there already.
    """
    if out.exists() and not overwrite:
        raise ValueError(f"{out} is there already; name another folder, or give --overwrite")
    records = [RunRecord.of(run) for run in runs]
    group = one_group(records, known_beside(records))
    for record in records:
        _require_whole(record)
    settled = settled_in(records[0].folder)
    script = make_script(settled)
    for record in records:
        kept = record.folder / SCRIPT
        if not kept.is_file() or kept.read_bytes() != script:
            raise ValueError(
                f"{kept} is not the script of this run as this version makes it, so the bytes that "
                f"it counted are not those of the code; run it again with this version"
            )
    with whole_folder(out) as folder:
        atomic_write(folder / SCRIPT, script)
        for record in records:
            for name in COPIED:
                source = record.folder / name
                if source.is_file():
                    shutil.copyfile(source, folder / seed_name(name, record.seed))
        described = describe(group, about, script, folder)
        atomic_write(folder / SUBMISSION, json.dumps(described, indent=2).encode())
        atomic_write(folder / REQUIREMENTS, requirements(unpack_script(script)).encode())
        atomic_write(folder / README, readme(described, group).encode())
    return described


def known_beside(records: Sequence[RunRecord]) -> dict[str, int]:
    """How many runs there were of each group, as databases beside the run folders know."""
    found: dict[str, int] = {}
    for path in {record.folder.parent / DATABASE for record in records}:
        if path.is_file():
            for group, number in RunsDatabase(path).group_sizes().items():
                found[group] = max(number, found.get(group, 0))
    return found


def one_group(records: Sequence[RunRecord], known: Mapping[str, int] | None = None) -> Group:
    """The runs as seeds of one thing. Raises ValueError naming in what they differ."""
    if not records:
        raise ValueError("name the run folders: fairway submit RUN... --out DIR")
    for record in records:
        if record.result.score is None:
            raise ValueError(f"{record.folder} has no score yet; finish it with --resume")
        if record.result.score.scope is not None:
            raise ValueError(
                f"{record.folder} scored {record.result.score.scope}, and a record is of all of "
                f"the text; run it without --fit"
            )
    groups = group_runs(records, known)
    if len(groups) > 1:
        other = groups[1]
        raise ValueError(
            f"{other.records[0].folder} is no further seed of {groups[0].records[0].folder}: "
            f"{other.name} instead of {groups[0].name}; hand in runs of one recipe, text and "
            f"version that differ in their seed alone"
        )
    if groups[0].repeated or len(groups[0].records) < len(records):
        raise ValueError("a seed is given twice; hand in each seed once")
    return groups[0]


def settled_in(folder: Path, seed: int | None = None) -> Settled:
    """What a run settled, from the files of its folder, or of a folder that was handed in.

    Raises ValueError where they do not say.
    """
    named = (lambda name: name) if seed is None else (lambda name: seed_name(name, seed))

    def part(held: object, name: str) -> Mapping[str, object]:
        return json_object(json_object(held, "it").get(name), name)

    chosen = part(parse_json(read_file(folder / named(RUN), MOST_DESCRIPTION)), "settled")
    planned = part(part(chosen, "evaluation"), "config")
    artifact = unpack((folder / named(ARTIFACT)).read_bytes())
    tokenizer = load_tokenizer(artifact.tokenizer)
    result = json_object(parse_json(read_file(folder / named(RESULT), MOST_RESULT)), RESULT)
    return Settled(
        recipe=read_recipe(folder) if seed is None else read_recipe_file(folder / named(RECIPE)),
        evaluate=config_from_json(EvaluateConfig, planned),
        header=artifact.config,
        compute_dtype=str(chosen.get("compute_dtype")),
        compiled=bool(chosen.get("compiled")),
        device=(
            "cuda" if str(result.get("device")).rpartition(", ")[2].startswith("cuda") else "cpu"
        ),
        tokenizer=tokenizer.kind,
        transform=tokenizer.transform,
    )


def read_recipe_file(path: Path) -> Recipe:
    return config_from_json(Recipe, unsealed(path.read_bytes()))


def describe(group: Group, about: About, script: bytes, folder: Path) -> JsonObject:
    """`submission.json`."""
    first, results = group.records[0], {r.seed: r.result for r in group.records}
    return {
        "author": about.author,
        "github_id": about.github_id,
        "name": about.title or first.result.recipe,
        "blurb": about.blurb,
        "date": datetime.now(UTC).date().isoformat(),
        "track": about.track,
        **figures_of_all(list(results.values()), len(script)),
        "seeds": list(results),
        "seed_results": {
            str(seed): figures_of_seed(result, folder / seed_name(LOG, seed))
            for seed, result in results.items()
        },
        "hardware": first.machine,
        "pytorch_version": first.versions.get("torch", ""),
        "fairway_version": first.versions.get("fairway", ""),
        "runs_known": group.known,
        "text": first.text,
    }


def figures_of_seed(result: RunResult, log: Path) -> JsonObject:
    """What `submission.json` says of one seed, which has a score and a model."""
    score, artifact, evaluate = result.score, result.artifact, result.evaluate
    assert score is not None
    assert artifact is not None
    return {
        "val_loss": score.nats / score.tokens,
        "val_bpb": score.bits_per_byte,
        "artifact_bytes": artifact.bytes_total,
        "steps": result.train.steps,
        "step_avg_ms": 1000 * result.train.seconds / max(1, result.train.steps),
        "train_time_s": result.train.seconds,
        "eval_time_s": evaluate.seconds if evaluate else None,
        "log_sha256": file_sha256(log),
        "model_sha256": artifact.sha256,
    }


def figures_of_all(results: Sequence[RunResult], code_bytes: int) -> JsonObject:
    """Means, deviations and the largest size of seeds, each of which has a score and a model."""
    nats = [r.score.nats / r.score.tokens for r in results if r.score]
    bits = [r.score.bits_per_byte for r in results if r.score]
    several = len(results) > 1
    return {
        "val_loss": fmean(nats),
        "val_bpb": fmean(bits),
        "val_loss_std": stdev(nats) if several else None,
        "val_bpb_std": stdev(bits) if several else None,
        "bytes_total": max(r.artifact.bytes_total for r in results if r.artifact),
        "bytes_code": code_bytes,
    }


def requirements(source: str) -> str:
    """The packages that a script imports, as they are installed here."""
    imported = set(re.findall(r"^\s*(?:from|import)\s+(\w+)", source, re.MULTILINE))
    imported |= {
        name.strip().split(" ")[0].split(".")[0]
        for line in re.findall(r"^\s*import\s+([^\n;]+)", source, re.MULTILINE)
        for name in line.split(",")
    }
    if "sentencepiece_model_pb2" in source:  # which sentencepiece does not bring itself
        imported.add("google")
    lines = []
    for name in sorted(imported & PACKAGES.keys()):
        try:
            lines.append(f"{PACKAGES[name]}=={version(PACKAGES[name]).partition('+')[0]}")
        except PackageNotFoundError:
            lines.append(PACKAGES[name])
    return "\n".join(lines) + "\n"


def readme(described: Mapping[str, Any], group: Group) -> str:
    rows = [
        f"| {seed} | {one['val_bpb']:.5f} | {one['val_loss']:.5f} | {one['artifact_bytes']:,} | "
        f"{one['steps']:,} | {one['train_time_s']:.1f} | {one['eval_time_s'] or 0:.1f} |"
        for seed, one in described["seed_results"].items()
    ]
    first = described["seeds"][0]
    spread = described["val_bpb_std"]
    return "\n".join(
        [
            f"# {described['name']}",
            "",
            described["blurb"] or f"Recipe `{group.name}`.",
            "",
            f"**{described['val_bpb']:.5f} bits per byte**"
            + (f" (deviation {spread:.5f}" if spread is not None else " (one seed")
            + f", {len(described['seeds'])} seeds), {described['bytes_total']:,} bytes at most, of "
            f"which {described['bytes_code']:,} are code.",
            "",
            "| seed | bits per byte | nats per token | bytes | steps | train s | eval s |",
            "|---|---|---|---|---|---|---|",
            *rows,
            "",
            "## Run it",
            "",
            "```sh",
            f"pip install -r {REQUIREMENTS}",
            f"DATA_PATH=... SEED={first} python {SCRIPT} --eval   # score the model beside it",
            f"DATA_PATH=... SEED={first} torchrun --nproc-per-node 8 {SCRIPT}  # train",
            "```",
            "",
            "The script holds all of the code, packed; it trains with plain PyTorch operations.",
            "`fairway check .` judges this folder.",
            "",
        ]
    )


def _require_whole(record: RunRecord) -> None:
    for name, needed in COPIED.items():
        if needed and not (record.folder / name).is_file():
            raise ValueError(f"{record.folder} has no {name}; finish the run with --resume")
    require_own_artifact(record)
    told = log_facts(record.folder / LOG)
    if told.get("made_with") != record.result.made_with:
        raise ValueError(
            f"{record.folder / LOG} is the log of another run, or of an older version; bring the "
            f"right one back, or run it again"
        )


def log_facts(path: Path) -> dict[str, Any]:
    """What a run's log says of itself: the last word on each matter.

    Raises ValueError where it is longer than any log.
    """
    found: dict[str, Any] = {}
    for line in read_file(path, MOST_LOG).splitlines():
        if b'"facts"' not in line:
            continue
        with suppress(ValueError):
            said = parse_json(line)
            if isinstance(said, dict) and said.get("event") == "facts":
                found |= said
    return found
