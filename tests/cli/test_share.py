"""What hands a model on, as typed."""

import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

import fairway
from fairway.cli import main

from .conftest import MODEL, OPTIONS, VERSES, Ask


def test_the_harness_finds_our_own_bits_per_byte(
    ask: Ask, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("lm_eval", reason="needs the extra lm-eval")
    tasks = work / "tasks"
    tasks.mkdir()
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tasks / "cache"))
    texts = [verse.decode() for verse in VERSES[:3]]
    (tasks / "verses.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    (tasks / "verses.yaml").write_text(
        "task: verses\ndataset_path: json\ntest_split: test\noutput_type: loglikelihood_rolling\n"
        f"dataset_kwargs: {{data_files: {{test: '{tasks / 'verses.jsonl'}'}}}}\n"
        "doc_to_text: ''\ndoc_to_target: '{{text}}'\nmetric_list: [{metric: bits_per_byte}]\n"
    )
    found = ask(
        "lm-eval", MODEL, "--tasks", "verses,", "--include-path", "tasks", "--out", "found.json"
    )
    model = fairway.load(work / MODEL)
    scores = [model.score(text, learn=False) for text in texts]
    ours = sum(s.bits for s in scores) / sum(s.num_bytes for s in scores)
    assert found["results"]["verses"]["bits_per_byte,none"] == pytest.approx(ours, rel=1e-12)
    assert "verses" in json.loads((work / "found.json").read_text())["results"]
    assert main(["lm-eval", MODEL]) == 2  # no task was named


@pytest.mark.parametrize(
    ("hidden", "words", "extra"),
    [
        ("uvicorn", ["serve", MODEL], "serve"),
        ("starlette", ["serve", MODEL], "serve"),
        ("lm_eval", ["lm-eval", MODEL, "--tasks", "x"], "lm-eval"),
        ("optuna", ["tune", MODEL, "data"], "tune"),
        ("matplotlib", ["report", "run"], "report"),
    ],
)
def test_a_missing_extra_is_named_with_what_brings_it(
    work: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch,
    hidden: str, words: list[str], extra: str,
) -> None:  # fmt: skip
    ours = ("fairway.serve.", "fairway.interop.harness", "fairway.tune", "fairway.report")
    for name in list(sys.modules):
        if name.partition(".")[0] == hidden or name.startswith(ours):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.chdir(work)
    monkeypatch.setitem(sys.modules, hidden, None)
    assert main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"needs `pip install 'fairway[{extra}]'`" in line


@pytest.mark.slow
def test_a_run_without_what_draws_pictures_has_all_but_its_page(work: Path) -> None:
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "from fairway.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    words = ["run", "pocket", "data", "--out", "without", *OPTIONS, "--audit-seconds", "2"]
    done = subprocess.run(
        [sys.executable, "-c", code, *words], cwd=work, capture_output=True, text=True, check=False
    )
    assert done.returncode in (0, 1), done.stderr  # 1: a budget of so small a run
    assert "no report.html: a page needs `pip install 'fairway[report]'`" in done.stderr
    assert "then: fairway report without" in done.stderr
    assert {"result.json", "proof.fwp", "certificate.json"} <= {
        p.name for p in (work / "without").iterdir()
    }


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_server_answers_until_it_is_asked_to_stop(work: Path, number: signal.Signals) -> None:
    pytest.importorskip("uvicorn", reason="needs the extra serve")
    words = [sys.executable, "-m", "fairway", "serve", MODEL, "--port", "0", "--name", "bottles"]
    server = subprocess.Popen([*words, "--json"], cwd=work, stderr=-1, stdout=-1, text=True)
    assert server.stderr
    address = server.stderr.readline().split()[2].rstrip(",")
    with urllib.request.urlopen(f"{address}/v1/models", timeout=30) as found:
        assert json.loads(found.read())["data"][0]["id"] == "bottles"
    server.send_signal(number)
    said, errors = server.communicate(timeout=30)
    assert (server.returncode, errors) == (0, "")
    assert json.loads(said) == {"address": address, "model": "bottles"}


def test_a_server_for_others_needs_a_token(work: Path, monkeypatch, capsys) -> None:
    pytest.importorskip("uvicorn", reason="needs the extra serve")
    monkeypatch.chdir(work)
    monkeypatch.delenv("FAIRWAY_TOKEN", raising=False)
    for words in (["--host", "0.0.0.0"], ["--host", "0.0.0.0", "--expose"]):
        assert main(["serve", MODEL, "--port", "0", *words]) == 2
        assert "token" in capsys.readouterr().err
    Path("short").write_text("short\n")
    assert main(["serve", MODEL, "--token-file", "short"]) == 2
    assert "5 characters" in capsys.readouterr().err
    assert os.environ.get("FAIRWAY_TOKEN") is None
