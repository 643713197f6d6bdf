"""Windows share a forward pass only where that changes nothing."""

import torch

from fairway.evaluate.chunks import (
    cut_chunk,
    plan_documents,
)
from fairway.evaluate.frozen import Frozen
from fairway.evaluate.window_batch import group_windows
from fairway.evaluate.windows import Window

from .models import CONTEXT, text, tiny_model, val_text

TOKENS, STARTS = text((21, 2, 30, 17, 9, 26))


def test_padding_changes_no_nats() -> None:
    """Documents of unequal lengths share batches, and each is scored as in a batch of its own."""
    model = tiny_model()
    for plan in plan_documents(STARTS, len(TOKENS), CONTEXT, 4, 6):
        chunk = cut_chunk(plan, val_text(TOKENS))
        together, offsets = Frozen(model, rows=6).score(chunk), plan.offsets
        for i, (window, one) in enumerate(zip(plan.windows, chunk.texts, strict=True)):
            with torch.inference_mode():
                logits = model(one[None, :-1])[0, -window.num_targets :]
            alone = torch.nn.functional.cross_entropy(
                logits, one[-window.num_targets :], reduction="none"
            )
            assert torch.allclose(together[offsets[i] : offsets[i + 1]].float(), alone, atol=1e-5)


def test_windows_longer_than_the_training_context_are_not_padded() -> None:
    windows = [Window(0, 1, 1 + n) for n in (5, 9, 9, 30, 31, 30)]
    groups = group_windows(windows, range(6), rows=4, pad_to=16)
    assert groups == [(0, 1, 2), (3, 5), (4,)]
