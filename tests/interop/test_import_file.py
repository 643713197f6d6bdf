"""A published checkpoint as a file of ours: the same weights, and the script's evaluation."""

from pathlib import Path

import pytest
import torch

from fairway.artifact.loaded_model import load_model
from fairway.interop.environment import model_config, parse_environment
from fairway.interop.import_file import import_file
from fairway.interop.published_weights import load_checkpoint, published_shapes
from fairway.prepare import prepare_documents

ENV = {"VOCAB_SIZE": "300", "NUM_LAYERS": "2", "MODEL_DIM": "32", "NUM_HEADS": "2",
       "NUM_KV_HEADS": "1"}  # fmt: skip
DOCUMENTS = [f"{i} green bottles hanging on the wall. ".encode() * 4 for i in range(12)]


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    out = tmp_path / "data"
    prepare_documents(out, DOCUMENTS[:-1], DOCUMENTS[-1:], vocab_size=300, source="a song")
    return out / "tokenizer.model"


def checkpoint(path: Path, env: dict[str, str]) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    shapes = published_shapes("baseline", model_config(parse_environment("baseline", env)))
    saved = {name: torch.randn(shape) / 8 for name, shape in shapes.items()}
    torch.save(saved, path)
    return saved


def test_nothing_is_rounded_on_the_way(tokenizer: Path, tmp_path: Path) -> None:
    saved = checkpoint(tmp_path / "theirs.pt", ENV)
    out = tmp_path / "ours.fwy"
    told = import_file(tmp_path / "theirs.pt", "baseline", ENV, tokenizer, out)
    assert told["bytes"] == out.stat().st_size
    ours, theirs = load_model(out).model, load_checkpoint("baseline", ENV, saved)
    tokens = torch.randint(300, (2, 16))
    with torch.inference_mode():
        assert torch.equal(ours(tokens), theirs(tokens))


def test_a_tokenizer_with_more_pieces_than_the_model_knows_is_refused(
    tokenizer: Path, tmp_path: Path
) -> None:
    small = ENV | {"VOCAB_SIZE": "280"}
    checkpoint(tmp_path / "theirs.pt", small)
    with pytest.raises(ValueError, match="has 300 pieces and the model knows 280"):
        import_file(tmp_path / "theirs.pt", "baseline", small, tokenizer, tmp_path / "ours.fwy")
    assert not (tmp_path / "ours.fwy").exists()
