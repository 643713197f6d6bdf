"""A proof in a folder is of its model, its evaluation and its text, or is refused by name."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fairway.artifact.config_json import config_to_json
from fairway.artifact.loaded_model import load_model
from fairway.pipeline.judging import proof_result
from fairway.proof.certificate import Certificate
from fairway.proof.prove import prove
from fairway.result import RESULT
from fairway.runs.record import ARTIFACT
from fairway.runs.rules import RuleSet
from fairway.runtime.identity import sealed, unsealed
from fairway.submission.case import Finding, read_case
from fairway.submission.figures import judge_scores
from fairway.submission.folder import (
    CERTIFICATE,
    PROOF,
    SUBMISSION,
    About,
    seed_name,
    settled_in,
    submit,
)
from fairway.submission.proofs import judge_proofs
from fairway.tokens.shards import DataFolder
from fairway.tokens.val_text import ValText

from .conftest import Run, tiny

RULES = RuleSet(name="tiny")
SEED = 1337


@pytest.fixture(scope="session")
def settled_run(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(tiny("pocket", SEED), tmp_path_factory.mktemp("settled") / "run", proof_tokens=20)


@pytest.fixture
def folder(settled_run: Path, tmp_path: Path) -> Path:
    submit([settled_run], tmp_path / "record", About())
    return tmp_path / "record"


@pytest.fixture
def forge(folder: Path) -> Callable[..., None]:
    """Puts another proof by the same model in the place of the run's, result and all."""

    def forged(text: ValText, **options: Any) -> None:
        out, result = folder / seed_name(PROOF, SEED), folder / seed_name(RESULT, SEED)
        loaded = load_model(folder / seed_name(ARTIFACT, SEED))
        made = prove(loaded, text, out=out, seed=SEED, guard=False, **options)
        (folder / seed_name(CERTIFICATE, SEED)).write_text(made.to_json())
        held = unsealed(result.read_bytes())
        told = held | {"proof": config_to_json(proof_result(made))}
        result.write_text(json.dumps(sealed(told)))

    return forged


def judged(folder: Path, data: DataFolder | None = None, seconds: float = 60.0) -> Finding:
    case = read_case(folder, rules=RULES, data=data, seconds=seconds)
    return next(iter(judge_proofs(case)))


def test_a_settled_proof_decodes_and_is_the_score(folder: Path, song: DataFolder) -> None:
    found = judged(folder, song)
    assert found.answer == "pass", found
    assert "bytes of code, as the score says" in found.said


def test_a_proof_of_a_part_is_not_the_score(
    folder: Path, song: DataFolder, forge: Callable[..., None]
) -> None:
    forge(ValText.of(song), num_targets=200)
    assert judged(folder).answer == "fail"
    assert "its code has" in judged(folder).said


def test_a_proof_of_another_text_is_named(
    folder: Path, song: DataFolder, forge: Callable[..., None]
) -> None:
    documents = [b"nothing of the kind. " * 9, b"and more of it! " * 9]
    forge(ValText.of_documents(documents, song.tokenizer))
    result = folder / seed_name(RESULT, SEED)
    held: Any = unsealed(result.read_bytes())
    proof = held["proof"]
    held["score"] |= {"code_bytes": proof["coded_bytes"], "tokens": proof["tokens"]}
    result.write_text(json.dumps(sealed(held)))
    assert judged(folder, song).said == "it is of another text"


def test_a_few_bytes_less_of_code_are_seen_without_the_text_and_with_it(
    folder: Path, song: DataFolder
) -> None:
    """So few that the coder's own end would explain them: settled codes are compared exactly."""
    result, summary = folder / seed_name(RESULT, SEED), folder / SUBMISSION
    held: Any = unsealed(result.read_bytes())
    score = held["score"]
    score["code_bytes"] -= 4
    score["bits_per_byte"] = 8 * score["code_bytes"] / score["bytes"]
    result.write_text(json.dumps(sealed(held)))
    told = json.loads(summary.read_bytes())
    told["val_bpb"] = told["seed_results"][str(SEED)]["val_bpb"] = score["bits_per_byte"]
    summary.write_text(json.dumps(told))
    said = f"its code has {score['code_bytes'] + 4:,} bytes, and the score says"
    assert judged(folder).said.startswith(said)
    case = read_case(folder, rules=RULES, data=song)
    failed = {one.check: one.said for one in judge_scores(case) if one.answer == "fail"}
    assert set(failed) == {f"scored again, seed {SEED}"}
    assert failed.popitem()[1].startswith(f"edited: {score['code_bytes'] + 4:,} bytes of code")


def test_the_certificate_of_another_proof_is_named(folder: Path) -> None:
    path = folder / seed_name(CERTIFICATE, SEED)
    found = Certificate.load(path)
    path.write_text(replace(found, bitstream_sha256="0" * 64).to_json())
    assert judged(folder).said == "its certificate is of another proof: other bits"


def test_a_damaged_proof_is_named_before_it_is_decoded(folder: Path) -> None:
    path = folder / seed_name(PROOF, SEED)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert judged(folder).answer == "fail"


def test_decoding_goes_as_far_as_its_seconds(folder: Path) -> None:
    assert judged(folder, seconds=0.0).said.startswith("decodes: ")


def test_a_proof_of_another_evaluation_is_named(
    folder: Path, song: DataFolder, forge: Callable[..., None]
) -> None:
    """Without learning: a code that decodes, and not the one whose length is the score."""
    forge(ValText.of(song), evaluate=replace(settled_in(folder, SEED).evaluate, ttt=None))
    assert judged(folder).said == "it is of another evaluation than the one that was scored"


def test_a_folder_without_a_proof_says_how_to_make_one(folder: Path) -> None:
    (folder / seed_name(PROOF, SEED)).unlink()
    found = judged(folder)
    assert (found.answer, found.mend) == ("unknown", "fairway prove MODEL DATA")
