"""No proof is written where another way to compute comes near its margins."""

from dataclasses import replace
from pathlib import Path

import pytest

from fairway.evaluate.learners.documents import DocumentAdapters
from fairway.evaluate.learners.mixture import Mixture
from fairway.evaluate.learners.sgd import Sgd
from fairway.evaluate.ledger import Margins
from fairway.model.adapters import AdapterConfig
from fairway.proof.guard import Guard, seen_deviation
from fairway.proof.prove import prove

from .conftest import DOCUMENTS, FROZEN, corpus, loaded

STREAM = replace(FROZEN, arithmetic="settled")
SGD = Sgd(chunk_tokens=16, epochs=2, lr=0.05, batch_sequences=2)
ADAPTERS = DocumentAdapters(adapters=AdapterConfig(rank=2), lr=0.01)
WAYS = {
    "frozen": STREAM,
    "sgd and mixture": replace(STREAM, ttt=SGD, mixture=Mixture()),
    "adapters": replace(STREAM, documents=True, rows=2, ttt=ADAPTERS),
}


@pytest.mark.parametrize("way", WAYS)
def test_another_process_sees_nearly_the_same(way: str) -> None:
    model, text = loaded(WAYS[way]), corpus(DOCUMENTS * 4)
    with Guard(model.model, WAYS[way].resolved(16), text) as guard:
        here, found = guard.here, guard.deviation()
    assert 0 <= found.logit < 1e-13
    assert found.state < 1e-12
    assert found.state > 0 or way == "frozen"
    assert any(name.startswith("learned/") for name in here) == (way != "frozen")


@pytest.mark.parametrize("margins", [Margins(logit=1e-15), Margins(state=1e-16)])
def test_a_deviation_near_a_margin_writes_no_proof(
    margins: Margins, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    way = WAYS["sgd and mixture"]
    monkeypatch.setattr(Sgd, "margins", lambda self: margins)
    path = tmp_path / "proof.fwp"
    with pytest.raises(ValueError, match="needs ten times less"):
        prove(loaded(way), corpus(DOCUMENTS), out=path)
    assert not path.exists()


def test_a_process_that_ends_badly_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fairway.proof.guard.sys.executable", "/bin/false")
    with pytest.raises(RuntimeError, match="another process failed"):
        seen_deviation(loaded(STREAM).model, STREAM.resolved(16), corpus(DOCUMENTS))


def test_what_guards_is_gone_when_encoding_fails() -> None:
    with (
        pytest.raises(KeyError),
        Guard(loaded(STREAM).model, STREAM.resolved(16), corpus(DOCUMENTS)) as guard,
    ):
        raise KeyError
    assert guard.process.poll() is not None
    assert not Path(guard.folder.name).exists()
