import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fairway.audit.findings import AuditReport, ProbeResult
from fairway.pipeline import judging
from fairway.pipeline.judging import audit_run, compare, keep_excerpt, prove_score, write_page
from fairway.pipeline.scoring import LEARNING, SLIDING, token_nats_file
from fairway.recipes.registry import recipe, smoke
from fairway.report.excerpt import EXCERPT
from fairway.result import RunResult, ScoreResult, StageResult, TrainResult
from fairway.runtime.run_log import RunLog
from fairway.runtime.setup import Runtime
from fairway.tokens.shards import DataFolder
from fairway.tokens.val_text import ValText

Go = Callable[..., RunResult]


def test_a_proof_is_of_as_many_tokens_as_there_are_or_of_none(
    song: DataFolder, runtime: Runtime, go: Go, tmp_path: Path
) -> None:
    chosen, artifact, text = smoke(recipe("pocket")), tmp_path / "model.fwy", ValText.of(song)
    go(chosen, tmp_path)
    assert not (tmp_path / "proof.fwp").exists()
    short = text.first(30)
    proof = prove_score(artifact, chosen, short, runtime, 1_000_000)
    assert proof is not None
    assert (proof.tokens, proof.holds) == (30, True)
    assert json.loads((tmp_path / "certificate.json").read_text())["num_tokens"] == 30


def test_an_audit_holds_the_run_to_its_own_budget_and_keeps_what_it_says(
    song: DataFolder, runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen, report, asked = smoke(recipe("pocket")), AuditReport("model.fwy", {}), {}

    def audit_artifact(model: Path, data: DataFolder, **options: Any) -> AuditReport:
        asked.update(options)
        options["progress"](text="walking")
        return report

    monkeypatch.setattr(judging, "audit_artifact", audit_artifact)
    assert audit_run(tmp_path / "model.fwy", chosen, song, runtime, 0) is None
    assert not asked
    with RunLog(tmp_path / "log", quiet=True) as log:
        logged = Runtime(runtime.device, log=log)
        assert audit_run(tmp_path / "model.fwy", chosen, song, logged, 3.0) is report
    assert asked["cap_bytes"] == chosen.budget.cap_bytes
    assert asked["eval_seconds"] == chosen.budget.eval_seconds
    assert asked["seconds"] == 3.0
    assert '"event": "audit"' in (tmp_path / "log").read_text()


def test_an_audit_that_could_not_ask_is_an_error_and_no_verdict(
    song: DataFolder, runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = ProbeResult("determinism", False, "", details={"broken": "no answer"})
    report = AuditReport("model.fwy", {"determinism": alone})
    monkeypatch.setattr(judging, "audit_artifact", lambda *_, **__: report)
    with pytest.raises(ValueError, match=r"no verdict: probe 'determinism': no answer.*--resume"):
        audit_run(tmp_path / "model.fwy", smoke(recipe("pocket")), song, runtime, 3.0)


def test_compressors_read_the_text_that_was_scored(song: DataFolder, runtime: Runtime) -> None:
    text = ValText.of(song, 50)
    found = compare(song, text, runtime)
    assert set(found) == {"xz", "zstd", "ppmd"}
    assert found["xz"].primed < found["xz"].alone
    assert found["xz"].val_bytes == len(song.tokenizer.decode(text.tokens.tolist()))


def test_a_page_is_written_of_a_run_folder(go: Go, tmp_path: Path) -> None:
    go(smoke(recipe("pocket")), tmp_path)
    assert "pocket_smoke" in write_page([tmp_path], tmp_path / "report.html").read_text()


@pytest.mark.parametrize("change", [None, 1.01, np.nan])
def test_a_page_shows_what_each_token_cost_only_where_that_is_the_score(
    song: DataFolder, runtime: Runtime, tmp_path: Path, change: float | None
) -> None:
    text = ValText.of(song, 50)
    each = np.full(text.num_targets, 2.0, np.float32)
    stage = StageResult(bits_per_byte=1.0, nats_per_token=2.0, seconds=1.0)
    nats, size = 2.0 * text.num_targets, text.num_targets
    score = ScoreResult(bits_per_byte=1.0, nats=nats, tokens=size, bytes=size)
    train = TrainResult(seconds=1.0, steps=1, tokens=1)
    result = RunResult(
        recipe="r", seed=1, device="cpu", params=1, train=train, score=score,
        stages={"sliding": stage, "ttt": stage},
    )  # fmt: skip
    for name in (SLIDING, LEARNING):
        np.save(token_nats_file(tmp_path, name), each if change is None else each * change)
    keep_excerpt(tmp_path, text, song, result, runtime)
    assert (tmp_path / EXCERPT).is_file() == (change is None)
