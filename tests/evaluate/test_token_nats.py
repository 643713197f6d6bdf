"""Each token's nats stand at its own place, whatever the order of chunks and however often."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fairway.evaluate.chunks import Chunk, plan_chunks, plan_documents, read_chunks
from fairway.evaluate.token_nats import TokenNats
from fairway.tokens.val_text import ValText

TEXT = ValText(torch.arange(40) % 7, torch.ones(39, dtype=torch.int64), (0, 7, 14, 21, 28, 35))


def nats_of(chunk: Chunk) -> torch.Tensor:
    """As many nats as the place of the target in the text."""
    places = [torch.arange(w.score_from - 1, w.stop - 1) for w in chunk.plan.windows]
    return torch.cat([*places, torch.zeros(0, dtype=torch.int64)]).double()


@pytest.mark.parametrize(
    "plans",
    [
        plan_chunks(40, 8, 4, 8),
        plan_chunks(40, 8, 4, 8, TEXT.document_starts),
        plan_documents(TEXT.document_starts, 40, 8, 4, rows=3, order="longest_first"),
    ],
)
def test_every_target_has_its_own_nats(plans: list, tmp_path: Path) -> None:
    kept = TokenNats(tmp_path / "nats.npy", TEXT.num_targets)
    for chunk in reversed(list(read_chunks(plans, TEXT))):
        kept.book(chunk, nats_of(chunk))
    assert kept.read().tolist() == list(range(39))


def test_an_interrupted_walk_goes_on_in_the_same_file(tmp_path: Path) -> None:
    chunks = list(read_chunks(plan_chunks(40, 8, 4, 8), TEXT))
    first = TokenNats(tmp_path / "nats.npy", TEXT.num_targets)
    for chunk in chunks[:3]:
        first.book(chunk, nats_of(chunk))
    assert np.isnan(first.read()).sum() == 39 - 24
    again = TokenNats(tmp_path / "nats.npy", TEXT.num_targets)
    for chunk in chunks[2:]:
        again.book(chunk, nats_of(chunk))
    assert again.read().tolist() == list(range(39))


def test_the_file_of_another_text_is_refused(tmp_path: Path) -> None:
    TokenNats(tmp_path / "nats.npy", 39)
    with pytest.raises(ValueError, match="delete it"):
        TokenNats(tmp_path / "nats.npy", 40)
