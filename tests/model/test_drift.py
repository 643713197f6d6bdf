"""Logits and losses that must stay what they were: a refactoring may change speed, never numbers.

`drift.json` was written by this code once its logits had been compared with those of the published
scripts. After a change that is meant to move numbers, write it anew and say so in the change:

    PYTHONPATH=src:. python -m tests.model.test_drift
"""

import json
from pathlib import Path

import pytest
import torch

from .variants import VARIANTS, build, tokens

FILE = Path(__file__).with_name("drift.json")
PLACES = [0, 1, 5, 22, 23, 24, 39]  # the first positions, a document's end and start, the last
PIECES = [0, 17, 60]


def measure(name: str) -> dict[str, object]:
    model, ids = build(VARIANTS[name]), tokens()
    with torch.inference_mode():
        logits = model(ids)[0, PLACES][:, PIECES]
    loss = model.train().loss(ids, ids.roll(-1, 1))
    loss.backward()
    norms = [p.grad.double().norm() for p in model.parameters() if p.grad is not None]
    return {
        "logits": [[round(value, 5) for value in row] for row in logits.tolist()],
        "loss": round(loss.item(), 6),
        "gradient": round(torch.stack(norms).norm().item(), 5),
        "parameters": sum(p.numel() for p in model.parameters()),
    }


@pytest.mark.parametrize("name", VARIANTS)
def test_numbers_are_those_on_record(name: str) -> None:
    then, now = json.loads(FILE.read_text())[name], measure(name)
    assert now["parameters"] == then["parameters"]
    for key in ("logits", "loss", "gradient"):
        expected, got = torch.tensor(then[key]), torch.tensor(now[key])
        assert torch.allclose(got, expected, atol=1e-4, rtol=1e-3), key


def test_nothing_on_record_is_forgotten() -> None:
    assert json.loads(FILE.read_text()).keys() == VARIANTS.keys()


if __name__ == "__main__":
    record = {name: measure(name) for name in VARIANTS}
    rows = (f"{json.dumps(name)}: {json.dumps(numbers)}" for name, numbers in record.items())
    FILE.write_text("{\n" + ",\n".join(rows) + "\n}\n")
