"""`fairway check` and `submit` as commands: their answers and exit statuses."""

import json
from pathlib import Path

import pytest

from fairway.cli import main


@pytest.fixture
def published(tmp_path: Path) -> Path:
    (tmp_path / "README.md").write_text("words")
    (tmp_path / "train_gpt.py").write_text("print(1)")
    results = {}
    for seed in (1, 2, 3):
        (tmp_path / f"train_seed{seed}.log").write_text(f"seed: {seed}\nval_bpb:1.0800\n")
        results[seed] = {"val_bpb": 1.08, "artifact_bytes": 15_000_000}
    held = {"val_bpb": 1.08, "seed_results": results}
    (tmp_path / "submission.json").write_text(json.dumps(held))
    return tmp_path


def test_a_folder_of_the_fields_is_judged(published: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["check", str(published), "--json"]) == 0
    said = capsys.readouterr()
    answer = json.loads(said.out.splitlines()[-1])
    assert (answer["verdict"], answer["ours"]) == ("passed", False)
    assert "unknown code" in said.err
    path = published / "submission.json"
    path.write_text(path.read_text().replace("15000000", "16024793"))
    assert main(["check", str(published), "--json"]) == 1
    answer = json.loads(capsys.readouterr().out.splitlines()[-1])
    failed = [one for one in answer["findings"] if one["answer"] == "fail"]
    assert [one["check"] for one in failed] == ["bytes"]
    assert failed[0]["mend"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["check", "nowhere"], "there is no folder"),
        (["check", ".", "--rules", "mine"], "no rules named"),
        (["submit", "nowhere", "--out", "out"], "nowhere has no result.json"),
    ],
)
def test_what_cannot_be_judged_says_how_to_mend_it(
    words: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
