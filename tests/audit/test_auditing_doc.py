"""The recipe in docs/auditing.md, run as it is printed there."""

import re
from pathlib import Path

import pytest

from fairway.audit import KINDS, Limits, run_audit
from fairway.audit.stream import pseudo_text
from fairway.cli import main

DOCS = Path(__file__).parents[2] / "docs"

SCRIPT = """
import torch
import torch.nn.functional as F

def load_model():
    torch.manual_seed(1)
    return torch.nn.Embedding(32, 32)

def eval_val(model, tokens, book):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for first in range(0, len(tokens) - 1, 32):
        chunk = tokens[first : first + 33]
        nll = F.cross_entropy(model(chunk[:-1]), chunk[1:], reduction="none")
        {before}
        optimizer.zero_grad()
        nll.mean().backward()
        optimizer.step()
        {after}

if __name__ == "__main__":
    raise SystemExit("trains for ten minutes")
"""
AFTER_LEARNING = 'book(first, F.cross_entropy(model(chunk[:-1]), chunk[1:], reduction="none"))'


@pytest.mark.slow
@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [("book(first, nll)", "pass", "legal"), ("pass", AFTER_LEARNING, "illegal")],
)
def test_the_glue_audits_a_published_script(
    tmp_path: Path, before: str, after: str, verdict: str
) -> None:
    text = (DOCS / "auditing.md").read_text()
    found = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert found is not None
    glue = found[1]
    (tmp_path / "glue.py").write_text(glue)
    (tmp_path / "train_gpt.py").write_text(SCRIPT.format(before=before, after=after))
    report = run_audit(
        f"{tmp_path / 'glue.py'}:score",
        vocab_size=32,
        tokens=pseudo_text(32, 100),
        limits=Limits(positions=3, cuts=40),
    )
    assert report.verdict == verdict, report.text()


def test_the_probe_of_your_own_is_asked_as_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / "auditing.md").read_text(), re.DOTALL)
    (tmp_path / "my_probes.py").write_text(blocks[1])
    (tmp_path / "mine.py").write_text(
        "import numpy as np\ndef score(t): return np.full(len(t) - 1, np.log(64))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    command = ["audit", f"{tmp_path / 'mine.py'}:score", "--vocab-size", "64", "--seconds", "4"]
    assert main([*command, "--probe", "my_probes:invented_tokens"]) == 0
    assert main([*command, "--probe", "my_probes:nothing_of_this_name"]) == 2


def test_the_catalogue_in_the_rules_names_every_kind_the_audit_prints() -> None:
    rows = re.findall(r"^\| ([A-E][\w, -]*?) +\|", (DOCS / "rules.md").read_text(), re.MULTILINE)
    listed = {name.split()[0] for row in rows for name in row.split(", ")}
    assert set(KINDS) <= listed


def test_the_examples_in_the_rules_exist() -> None:
    zoo = "".join((Path(__file__).parent / name).read_text() for name in ("frauds.py", "honest.py"))
    table = (DOCS / "rules.md").read_text().split("## Catalogue")[1].split("## What no")[0]
    named = re.findall(r"`([a-z_]+_[a-z_]+)`", table)
    assert len(named) > 25
    assert [name for name in named if f"def {name}(" not in zoo] == []
