"""A published file becomes a model of ours."""

from pathlib import Path

import pytest
import torch

from fairway.interop.challenge import import_artifact, read_ptz

SMALL = {
    "VOCAB_SIZE": "40",
    "NUM_LAYERS": "4",
    "MODEL_DIM": "32",
    "NUM_HEADS": "4",
    "NUM_KV_HEADS": "2",
    "MLP_MULT": "2",
}


@pytest.mark.parametrize("lineage", ["pr414", "pr1413"])
def test_a_published_artifact_loads_to_what_it_must(lineage: str, shared: Path) -> None:
    expected = torch.load(shared / "vectors" / f"{lineage}.int6.expected.pt", weights_only=True)
    path = shared / "vectors" / f"{lineage}.int6.ptz"
    weights = read_ptz(path)
    assert weights.keys() == expected["state_dict"].keys()
    assert all(torch.equal(weights[n], tensor) for n, tensor in expected["state_dict"].items())
    model = import_artifact(path, lineage, expected["config"])
    with torch.inference_mode():
        assert (model(expected["tokens"]) - expected["logits"]).abs().max() < 1e-4
