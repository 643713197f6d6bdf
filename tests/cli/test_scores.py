"""What judges a model, as typed: its score, a proof and its decoder."""

import gzip
import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from fairway.artifact.loaded_model import load_model
from fairway.cli import main
from fairway.evaluate import timed
from fairway.evaluate.planner import Rates
from fairway.model.gpt import GPT

from .conftest import MODEL, VERSES, Ask


def test_a_model_is_scored_as_it_says_or_as_told(ask: Ask) -> None:
    learning = ask("score", MODEL, "data")
    frozen = ask("score", MODEL, "data", "--set", "evaluate.ttt=null", "--set",
                 "evaluate.mixture=null")  # fmt: skip
    assert learning["tokens"] == frozen["tokens"]
    assert learning["bits_per_byte"] < frozen["bits_per_byte"]
    short = ask("score", MODEL, "data", "--tokens", "33", "--evaluate.stride", "16")
    assert short["tokens"] == 32


def test_any_text_is_scored_and_a_packed_one_alike(
    ask: Ask, work: Path, capsysbinary: pytest.CaptureFixture
) -> None:
    (work / "verse.txt").write_bytes(VERSES[3])
    plain = ask("score", MODEL, "verse.txt")
    assert plain["bytes"] == len(VERSES[3])
    (work / "verse.gz").write_bytes(gzip.compress(VERSES[3]))
    assert ask("score", MODEL, "verse.gz")["bits_per_byte"] == plain["bits_per_byte"]
    two = ask("score", MODEL, "verse.txt", "verse.gz", "--evaluate.stride", "16")
    assert two["bytes"] == 2 * plain["bytes"]
    (work / "empty.txt").write_text("")
    capsysbinary.readouterr()
    for wrong, said in (("empty.txt", "no byte to score"), ("data/nope", "no such source")):
        assert main(["score", MODEL, wrong]) == 2
        assert said in capsysbinary.readouterr().err.decode()
    assert main(["score", MODEL, "data", "verse.txt"]) == 2


def test_a_proof_is_made_and_verified(ask: Ask, work: Path) -> None:
    made = ask("prove", MODEL, "data", "--tokens", "60", "--out", "p.fwp")
    assert made["decoded_equal"]
    assert json.loads((work / "p.json").read_text())["num_tokens"] == 60
    assert ask("verify", "p.fwp", MODEL, "--text", "p.txt")["equal"]
    assert VERSES[-1].startswith((work / "p.txt").read_bytes()[:40])


@pytest.mark.parametrize(
    "words",
    [
        ("score", MODEL, "data", "--out", "none/s.json"),
        ("prove", MODEL, "data", "--out", "none/p.fwp"),
        ("prove", MODEL, "data", "--out", "p.json"),  # where the certificate would replace it
        ("compress", MODEL, "file.txt", "none/packed"),
        ("compress", MODEL, "file.txt", "/dev/null"),
        ("tune", MODEL, "data", "--out", "none/t.json"),
    ],
)
def test_what_cannot_be_written_is_said_before_the_work(
    work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, words: tuple
) -> None:
    def works(*_: object, **__: object) -> None:
        raise AssertionError("it has begun to work")

    monkeypatch.chdir(work)
    monkeypatch.setattr(GPT, "forward", works)
    assert main(list(words)) == 2
    assert "no folder" in (said := capsys.readouterr().err) or words[-1] in said


def test_a_part_of_a_proof_is_never_called_the_whole(
    ask: Ask, work: Path, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr("fairway.proof.prove.CHECK_EVERY", 16)
    ask("prove", MODEL, "data", "--tokens", "60", "--out", "p.fwp")
    assert main(["verify", "p.fwp", MODEL, "--seconds", "0", "--json"]) == 0
    answer, said = (stream.decode() for stream in capsysbinary.readouterr())
    part = json.loads(answer.splitlines()[-1])
    assert (part["equal"], part["whole"], part["coded_bits_per_byte"]) == (None, False, None)
    assert 16 <= part["tokens"] < 60
    assert "yes, so far" in said
    assert "the text came back" not in said
    for option in ("--rows", "--threads"):
        assert main(["verify", "p.fwp", MODEL, option, "0"]) == 2
        assert "=0: one is the least" in capsysbinary.readouterr().err.decode()
    whole = ask("verify", "p.fwp", MODEL, "--seconds", "1000")
    assert (whole["equal"], whole["whole"], whole["tokens"]) == (True, True, 60)


def test_the_very_evaluation_that_was_scored_is_proved(
    ask: Ask, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its settings, its part of the text, and the lessons that its clock left time for."""
    with monkeypatch.context() as patched:
        patched.setattr(timed.Clocked, "_in_time", lambda self, chunk: chunk.plan.index % 2 == 0)
        scored = ask("score", MODEL, "data", "--tokens", "121", "--evaluate.rows", "1",
                     "--set", "evaluate.ttt.chunk_tokens=32", "--out", "s.json")  # fmt: skip
    assert len(scored["learned"]) > 1
    proved = ask("prove", MODEL, "data", "--score", "s.json", "--out", "p.fwp")
    assert proved["claimed_bits_per_byte"] == pytest.approx(scored["bits_per_byte"], abs=1e-5)
    assert proved["num_tokens"] == 120
    assert ask("verify", "p.fwp", MODEL)["tokens"] == 120
    told = json.loads((work / "s.json").read_text())
    for name, wrong in (("learned", None), ("bits_per_byte", told["bits_per_byte"] - 0.01)):
        (work / "wrong.json").write_text(json.dumps(told | {name: wrong}))
        no = ask("prove", MODEL, "data", "--score", "wrong.json", "--out", "p.fwp", status=1)
        assert "the same again" in no["differs"]
    (work / "wrong.json").write_text(json.dumps(told | {"text_sha256": "0" * 64}))
    assert main(["prove", MODEL, "data", "--score", "wrong.json"]) == 2
    part = ask("prove", MODEL, "data", "--score", "s.json", "--tokens", "40", "--out", "p.fwp")
    assert part["num_tokens"] == 40


def test_what_a_run_found_is_proved_where_it_lies_beside_the_model(ask: Ask, work: Path) -> None:
    file = {"sha256": load_model(work / MODEL).sha256}
    scored = ask("score", MODEL, "data", "--tokens", "65")
    score = {"tokens": 64, "bits_per_byte": scored["bits_per_byte"]}
    found = {"recipe": "x", "seed": 0, "score": score, "artifact": file}
    result, prove = work / "run" / "result.json", ["prove", MODEL, "data", "--out", "p.fwp"]
    try:
        result.write_text(json.dumps(found))
        assert ask(*prove)["num_tokens"] == 64
        result.write_text(json.dumps(found | {"score": score | {"bits_per_byte": 1.0}}))
        assert "the same again" in ask(*prove, status=1)["differs"]
        result.write_text(json.dumps(found | {"artifact": {"sha256": "0" * 64}}))
        assert ask(*prove, "--tokens", "70")["num_tokens"] == 70  # it is of another file
        assert main([*prove, "--score", "run/result.json"]) == 2
        del found["score"]
        result.write_text(json.dumps(found))
        assert ask(*prove, "--tokens", "70")["num_tokens"] == 70  # nothing was scored yet
    finally:
        result.unlink()


@pytest.mark.parametrize("text", ["", "[]", '{"tokens": 5}', '{"artifact_sha256": 5, "tokens": 5}'])
def test_a_file_that_tells_of_no_evaluation_is_refused(
    text: str, work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (work / "no.json").write_text(text)
    told = ["prove", str(work / MODEL), str(work / "data"), "--score", str(work / "no.json")]
    assert main([*told, "--out", str(work / "p.fwp")]) == 2
    assert "does not tell of an evaluation" in capsys.readouterr().err


def test_a_checkpoint_never_gives_one_model_the_score_of_another(
    ask: Ask, work: Path, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture
) -> None:
    """The first evaluation is interrupted; the other goes on from nothing of it."""
    asked = ["score", MODEL, "data", "--checkpoint", "kept"]

    def dies(self: object, *args: object) -> None:
        saves(self, *args)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    saves = timed.Saved.save
    with monkeypatch.context() as patched:
        at_once = partial(timed.CheckpointConfig, every_seconds=0.0)
        patched.setattr("fairway.evaluate.saved.CheckpointConfig", at_once)
        patched.setattr(timed.Saved, "save", dies)
        assert main(asked) not in (0, 1, 2)
    assert (work / "kept").is_file()
    loaded = load_model(work / MODEL)
    other = replace(loaded, sha256="0" * 64)
    with monkeypatch.context() as patched:
        patched.setattr("fairway.cli.scores.open_model", lambda path: other)
        assert main(asked) == 2
    assert "another evaluation" in capsysbinary.readouterr().err.decode()
    assert main([*asked, "--seed", "5"]) == 2
    assert main([*asked, "--evaluate.stride", "16"]) == 2
    assert ask(*asked)["tokens"] > 0
    assert not (work / "kept").exists()


def test_the_first_documents_that_fit_are_scored_and_proved_and_all_say_so(
    ask: Ask, work: Path, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture
) -> None:
    for number in range(4):
        (work / f"verse-{number}.txt").write_bytes(VERSES[number])
    verses = [f"verse-{number}.txt" for number in range(4)]
    rates = Rates(score=4e-3, learn=4e-3)  # seconds for each token that goes in
    monkeypatch.setattr("fairway.evaluate.fitting.measure_rates", lambda *_, **__: rates)
    found = ask("score", MODEL, *verses, "--budget-seconds", "3", "--fit", "--out", "fit.json")
    assert 0 < found["bytes"] < 4 * len(VERSES[0])
    assert "of 4 documents" in found["scope"]
    assert ask("score", MODEL, *verses, "--budget-seconds", "900", "--fit")["scope"] == ""
    capsysbinary.readouterr()
    assert main(["score", MODEL, *verses, "--fit"]) == 2
    assert "--budget-seconds" in capsysbinary.readouterr().err.decode()
    proved = ask("prove", MODEL, "data", "--fit", "--budget-seconds", "900", "--tokens", "40",
                 "--out", "p.fwp")  # fmt: skip
    assert proved["scope"] is None
    assert main(["prove", MODEL, "data", "--fit"]) == 2


def test_what_was_scored_in_part_is_proved_in_part(ask: Ask, work: Path) -> None:
    scored = ask("score", MODEL, "data", "--tokens", "61", "--out", "part.json")
    told = json.loads((work / "part.json").read_text()) | {"scope": "the first of many"}
    (work / "part.json").write_text(json.dumps(told))
    proved = ask("prove", MODEL, "data", "--score", "part.json", "--out", "p.fwp")
    assert proved["num_tokens"] == scored["tokens"]
    assert proved["scope"] == "the first of many"
    assert json.loads((work / "p.json").read_text())["scope"] == "the first of many"
