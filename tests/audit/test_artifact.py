"""The file, the text and the clocks behind a score; a real run in miniature, then spoiled."""

import json
import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fairway.artifact.container import pack, unpack
from fairway.audit import Case, ProbeResult, artifact
from fairway.audit.artifact import audit_artifact
from fairway.audit.findings import AuditReport
from fairway.audit.model_scorer import ModelScorer
from fairway.audit.scorer import Answer, ProcessScorer
from fairway.audit.vocabulary import open_vocabulary
from fairway.evaluate.config import EvaluateConfig
from fairway.evaluate.learners.phased import Phased
from fairway.evaluate.learners.sgd import Sgd
from fairway.pipeline.story import RunOptions, run_on
from fairway.prepare import prepare_documents
from fairway.recipes.registry import recipe, smoke
from fairway.runtime.distributed import Ranks
from fairway.runtime.files import file_sha256
from fairway.runtime.identity import sealed
from fairway.runtime.run_log import RunLog
from fairway.runtime.setup import Runtime
from fairway.tokens.byte_count import byte_table
from fairway.tokens.shards import DataFolder, open_shard, write_shard
from fairway.tokens.tokenizer import load_tokenizer

from .clock import Clock

Audited = Callable[..., artifact.AuditReport]
VERSES = [
    " ".join(f"{(i + 3) * k} bottles of {k} hang on wall {i}" for k in range(20)).encode()
    for i in range(30)
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `data` and `run`."""
    folder = tmp_path_factory.mktemp("made")
    prepare_documents(folder / "data", VERSES[:-3], VERSES[-3:], vocab_size=300, source="a song")
    here = Runtime(torch.device("cpu"), torch.float32, Ranks(), RunLog(None, quiet=True))
    (folder / "run").mkdir()
    options = RunOptions(proof_tokens=0, audit_seconds=0, compute_dtype="float32")
    run_on(here, smoke(recipe("pocket")), DataFolder(folder / "data"), folder / "run", options)
    return folder


@pytest.fixture
def spoiled(made: Path, tmp_path: Path) -> Path:
    """A copy, to be damaged."""
    shutil.copytree(made, tmp_path / "copy")
    return tmp_path / "copy"


@pytest.fixture
def without_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process of its own takes seconds to start."""
    monkeypatch.setattr(ModelScorer, "fresh", lambda self: self)


@pytest.fixture
def audited(clock: Clock) -> Audited:
    """Audits a folder; the clock shows a second more at every look, so by default as little
    is walked as can be, on any machine, and with infinite `seconds` all there is."""

    def audit(folder: Path, *, seconds: float = 0.01, **options) -> artifact.AuditReport:
        clock.step = 1.0
        data = DataFolder(folder / "data")
        model = folder / "run" / "model.fwy"
        return audit_artifact(model, data, seconds=seconds, now=clock.read, **options)

    return audit


def test_an_honest_run_is_legal_in_every_probe(made: Path, audited: Audited) -> None:
    report = audited(made, seconds=math.inf)
    assert report.verdict == "legal", report.text()
    assert {"causality", "normalization", "determinism", "coverage", "bytes"} < set(report.probes)
    assert "fresh process" in report.probes["determinism"].summary
    assert report.probes["order"].details["lessons"] > 0
    assert report.probes["causality"].details["edits"] > 10


@pytest.mark.slow
def test_an_order_of_documents_is_audited_in_that_order(
    made: Path, tmp_path: Path, audited: Audited
) -> None:
    """Pauses of learning, so that what comes later knows what came before."""
    base = smoke(recipe("pocket"))
    steps = Sgd(chunk_tokens=32, epochs=1, lr=0.1)
    settings = EvaluateConfig(
        context=16,
        stride=8,
        rows=2,
        documents=True,
        order="shortest_first",
        ttt=Phased(pauses=(1, 2), adapters=None, sgd=steps),
    )
    here = Runtime(torch.device("cpu"), torch.float32, Ranks(), RunLog(None, quiet=True))
    (tmp_path / "run").mkdir()
    (tmp_path / "data").symlink_to(made / "data")
    options = RunOptions(proof_tokens=0, audit_seconds=0, compute_dtype="float32")
    data = DataFolder(tmp_path / "data")
    run_on(here, replace(base, evaluate=settings), data, tmp_path / "run", options)
    report = audited(tmp_path, seconds=math.inf)
    assert report.verdict == "legal", report.text()
    assert report.order["name"] == "shortest first"
    assert report.order["permutation_bits"] == 0 < report.order["length_bits"]


@pytest.mark.usefixtures("without_process")
def test_a_validation_document_planted_in_training_is_found(
    spoiled: Path, audited: Audited
) -> None:
    data = spoiled / "data"
    val, train = (next(data.glob(f"{split}_*.bin")) for split in ("val", "train"))
    tokens = np.array(open_shard(val))
    second = np.flatnonzero(tokens == 1)[1]
    write_shard(train, np.concatenate([np.array(open_shard(train)), tokens[:second]]))
    manifest = json.loads((data / "data.json").read_text())
    manifest["sha256"][train.name] = file_sha256(train)  # whoever plants it covers it up
    (data / "data.json").write_text(json.dumps(manifest))
    probe = audited(spoiled).probes["separation"]
    assert not probe.ok
    assert "1 training documents are validation documents" in probe.findings[0].said


@pytest.mark.usefixtures("without_process")
def test_a_wrong_number_of_documents_is_found(spoiled: Path, audited: Audited) -> None:
    file = spoiled / "data" / "data.json"
    manifest = json.loads(file.read_text())
    manifest["val"]["documents"] += 1
    file.write_text(json.dumps(manifest))
    assert not audited(spoiled).probes["documents"].ok


@pytest.mark.usefixtures("without_process")
def test_a_cap_or_a_clock_that_was_missed_is_found(spoiled: Path, audited: Audited) -> None:
    for options, verdict in (
        ({"cap_bytes": 1000}, "over bytes"),
        ({"eval_seconds": 1e-6}, "over time"),
        ({"cap_bytes": 1000, "eval_seconds": 1e-6}, "over bytes and time"),
    ):
        report = audited(spoiled, **options)
        assert not report.probes["budget"].ok
        assert (report.verdict, report.exit_status) == (verdict, 1)
        assert AuditReport.from_json(report.to_json()).verdict == verdict
    file = spoiled / "run" / "result.json"
    result = json.loads(file.read_text())
    result["artifact"]["sha256"] = "0" * 64
    file.write_text(json.dumps(result))
    with pytest.raises(ValueError, match=r"result\.json: its checksum is wrong"):
        audited(spoiled)
    file.write_text(json.dumps(sealed(result)))
    report = audited(spoiled, cap_bytes=1000)
    assert "another file" in report.probes["budget"].findings[1].said
    assert report.verdict == "illegal"
    file.unlink()
    assert audited(spoiled).probes["budget"].not_covered


@pytest.mark.usefixtures("without_process")
def test_the_code_that_the_run_counted_is_part_of_its_size(spoiled: Path, audited: Audited) -> None:
    file, model = spoiled / "run" / "result.json", spoiled / "run" / "model.fwy"
    result = json.loads(file.read_text())
    result["artifact"] |= {"bytes_code": 5, "cap_bytes": model.stat().st_size + 5}
    file.write_text(json.dumps(sealed(result)))
    assert audited(spoiled).verdict == "legal"
    result["artifact"]["cap_bytes"] -= 1
    file.write_text(json.dumps(sealed(result)))
    report = audited(spoiled)
    assert (report.verdict, "with 5 of code" in report.text()) == ("over bytes", True)


@pytest.mark.usefixtures("without_process")
def test_a_file_that_its_parts_do_not_give_is_found(
    made: Path, audited: Audited, monkeypatch: pytest.MonkeyPatch
) -> None:
    def otherwise(config, tokenizer, tensors, extras=None):
        return pack(config | {"made": "later"}, tokenizer, tensors, extras)

    monkeypatch.setattr(artifact, "pack", otherwise)
    assert not audited(made).probes["rebuild"].ok


@pytest.mark.usefixtures("without_process")
def test_wrong_byte_counts_are_found(
    made: Path, audited: Audited, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = DataFolder.byte_counts

    def flattered(self: DataFolder, split: str) -> np.ndarray:
        right = counts(self, split).copy()
        right[5] += 3
        return right

    monkeypatch.setattr(DataFolder, "byte_counts", flattered)
    assert not audited(made).probes["bytes"].ok


def test_a_folder_of_another_tokenizer_is_refused(made: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    prepare_documents(other, VERSES[:-3], VERSES[-3:], vocab_size=290, source="a song")
    with pytest.raises(ValueError, match="another tokenizer"):
        audit_artifact(made / "run" / "model.fwy", DataFolder(other))


def test_documents_are_whole_wherever_blocks_end(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = np.array([1, 5, 6, 1, 7, 1, 8, 9, 10, 11], np.uint16)

    def parts() -> Iterator[list[int]]:
        return (part.tolist() for part in artifact._split(stream, 1))

    for size in range(1, 12):
        monkeypatch.setattr(artifact, "BLOCK_TOKENS", size)
        assert list(parts()) == [[5, 6], [7], [8, 9, 10, 11]]


def test_two_counts_of_bytes_agree_on_a_published_tokenizer(shared: Path) -> None:
    """The project's, and the one the audit makes for itself."""
    file = shared / "data" / "tokenizers" / "fineweb_8192_bpe.model"
    tokenizer = load_tokenizer(file)
    tokens = np.random.default_rng(0).integers(0, tokenizer.vocab_size, 20_000)
    ours = byte_table(tokenizer).target_bytes(tokens)
    assert np.array_equal(ours, open_vocabulary(file).targets(tokens))


def test_the_parts_of_a_file_are_all_there_is(made: Path) -> None:
    data = (made / "run" / "model.fwy").read_bytes()
    parts = unpack(data)
    assert pack(parts.config, parts.tokenizer, parts.tensors, parts.extras) == data


@pytest.mark.usefixtures("without_process")
def test_a_probe_of_the_users_own_is_asked_too(made: Path, audited: Audited) -> None:
    def mean_nats(case: Case) -> ProbeResult:
        answer = case.score(case.tokens)
        assert answer is not None
        return ProbeResult("", answer.mean() > 1e9, f"{answer.mean():.3f} nats per token")

    report = audited(made, probes=[mean_nats])
    assert report.verdict == "illegal"
    assert [name for name, probe in report.probes.items() if not probe.ok] == ["mean_nats"]


@pytest.mark.usefixtures("without_process")
def test_a_probe_may_score_a_stream_of_any_length(made: Path, audited: Audited) -> None:
    """Its beginning costs what it costs within the whole; more text than there is has a price."""
    seen: dict[str, float] = {}

    def lengths(case: Case) -> ProbeResult:
        whole, n = case.answer.nats, len(case.tokens)
        part = case.score(case.tokens[: n // 2])
        more = case.score(np.concatenate([case.tokens, case.tokens[1:5]]))
        assert whole is not None
        assert part is not None
        assert more is not None
        seen.update(part=len(part), more=len(more), first=float(part[0] - whole[0]))
        return ProbeResult("", True, "two other lengths")

    report = audited(made, probes=[lengths])
    assert report.probes["lengths"].ok, report.probes["lengths"].summary
    assert report.verdict == "legal"
    assert seen["more"] - 2 * seen["part"] in (4, 5, 6)
    assert seen["first"] == pytest.approx(0.0, abs=1e-6)


@pytest.mark.usefixtures("without_process")
def test_a_probe_that_fails_is_named_and_the_others_are_asked(made: Path, audited: Audited) -> None:
    def wrong(case: Case) -> ProbeResult:
        case.score(case.tokens[:0])
        raise ZeroDivisionError("nothing\nto divide")

    def mine(case: Case) -> ProbeResult:
        return ProbeResult("", True, "was asked")

    report = audited(made, probes=[wrong, mine])
    assert report.probes["mine"].ok
    assert report.probes["budget"].name == "budget"
    assert (report.verdict, report.exit_status) == ("unknown", 2)
    assert "probe 'wrong': " in report.to_json()["problem"]
    assert AuditReport.from_json(report.to_json()) == report
    assert "none  wrong: failed: " in report.text()


@pytest.mark.usefixtures("without_process")
def test_an_evaluation_that_is_not_the_same_twice_is_found(
    made: Path, audited: Audited, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest, calls = ModelScorer.call, iter(range(1000))

    def drifts(self: ModelScorer, tokens: np.ndarray, limit_seconds: float) -> Answer:
        answer = honest(self, tokens, limit_seconds)
        assert answer.nats is not None
        return replace(answer, nats=answer.nats + 1e-9 * next(calls))

    monkeypatch.setattr(ModelScorer, "call", drifts)
    assert not audited(made).probes["determinism"].ok


def test_where_no_fresh_process_starts_there_is_no_verdict_but_its_cause(
    made: Path, audited: Audited, monkeypatch: pytest.MonkeyPatch
) -> None:
    absent = ProcessScorer(artifact.__file__, "no_such_function")
    monkeypatch.setattr(ModelScorer, "fresh", lambda self: absent)
    report = audited(made)
    assert (report.verdict, report.exit_status) == ("unknown", 2)
    assert "no_such_function" in report.broken
    assert not report.probes["determinism"].ok
