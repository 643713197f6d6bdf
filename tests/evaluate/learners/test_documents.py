import dataclasses

import pytest
import torch
from torch import Tensor

from fairway.evaluate.chunks import plan_chunks, plan_documents, read_chunks
from fairway.evaluate.config import EvaluateConfig
from fairway.evaluate.frozen import Frozen
from fairway.evaluate.learners.documents import DocumentAdapters, DocumentPredictor
from fairway.evaluate.learners.phased import Phased
from fairway.model.adapters import AdapterConfig

from ..models import (
    ADAPTERS,
    CONTEXT,
    PLAIN,
    SGD,
    by_position,
    chunks_of,
    nats_in_order,
    text,
    tiny_model,
    val_text,
)

LENGTHS = (21, 2, 30, 17, 9, 26)
TOKENS, STARTS = text(LENGTHS)
COLD = dataclasses.replace(ADAPTERS, warm=False)
FROZEN = dataclasses.replace(PLAIN, documents=True)


def with_rows(rows: int, adapters: DocumentAdapters) -> EvaluateConfig:
    return dataclasses.replace(PLAIN, documents=True, rows=rows, ttt=adapters)


def of_document(nats: Tensor, document: int) -> Tensor:
    ends = [*STARTS[1:], len(TOKENS) - 1]
    return nats[STARTS[document] : ends[document]]


def test_a_cold_document_is_scored_as_if_it_were_alone() -> None:
    """Nothing is left of the documents before it, nor of those beside it."""
    together = by_position(with_rows(3, COLD), TOKENS, STARTS)
    others = TOKENS.clone()
    for document in (0, 1, 2, 4, 5):
        stop = [*STARTS[1:], len(TOKENS)][document]
        others[STARTS[document] + 1 : stop] = 9
    again = by_position(with_rows(3, COLD), others, STARTS)
    assert torch.equal(of_document(together, 3), of_document(again, 3))
    assert not torch.equal(of_document(together, 2), of_document(again, 2))


def test_rows_change_speed_and_not_nats() -> None:
    one, four = (by_position(with_rows(rows, COLD), TOKENS, STARTS) for rows in (1, 4))
    assert torch.allclose(one, four, atol=1e-3)


def test_the_first_stride_of_a_document_is_the_models_own() -> None:
    adapted, frozen = (
        by_position(with_rows(3, ADAPTERS), TOKENS, STARTS),
        by_position(FROZEN, TOKENS, STARTS),
    )
    for start in STARTS:
        assert torch.allclose(adapted[start : start + 1], frozen[start : start + 1], atol=1e-6)
    late = slice(STARTS[2] + CONTEXT + 4, STARTS[3])
    assert not torch.allclose(adapted[late], frozen[late], atol=1e-4)


def test_a_warm_row_hands_on_what_it_learned_to_look_at_but_not_what_it_said() -> None:
    predictor = DocumentPredictor(tiny_model(), ADAPTERS, rows=1)
    begun = {name: p.detach().clone() for name, p in predictor.bank.down.items()}
    chunks = list(read_chunks(plan_documents(STARTS, len(TOKENS), CONTEXT, 4, 1), val_text(TOKENS)))
    fresh = next(c for c in chunks if c.plan.rows == (2,))
    nats_in_order(predictor, chunks[: chunks.index(fresh)])
    assert any(up.abs().max() > 0 for up in predictor.bank.up.values())
    assert any(not torch.equal(begun[k], p) for k, p in predictor.bank.down.items())
    assert torch.allclose(predictor.score(fresh), Frozen(tiny_model()).score(fresh), atol=1e-6)
    learned = {name: p.detach().clone() for name, p in predictor.bank.down.items()}
    predictor.learn(fresh)
    drift = max((learned[k] - p).abs().max().item() for k, p in predictor.bank.down.items())
    assert drift < 0.01  # one step further, not drawn anew


def test_what_a_documents_end_would_teach_is_not_computed() -> None:
    predictor = DocumentPredictor(tiny_model(), ADAPTERS, rows=8)
    tokens, starts = text((5, 5, 5))
    nats_in_order(predictor, chunks_of(with_rows(8, ADAPTERS), tokens, starts)[-1:])
    assert predictor.counts["steps"] == 0


def test_a_step_is_adamw_on_each_row_by_itself() -> None:
    """Against the library's AdamW with one document."""
    config = dataclasses.replace(ADAPTERS, betas=(0.5, 0.9), eps=1e-6, steps=2)
    predictor = DocumentPredictor(tiny_model(), config, rows=1)
    twin = DocumentPredictor(tiny_model(), config, rows=1)
    optimizer = torch.optim.AdamW(
        twin.bank.parameters(), lr=0.01, betas=(0.5, 0.9), eps=1e-6, weight_decay=0.5
    )
    for chunk in chunks_of(with_rows(1, config), *text((40,)))[:3]:
        predictor.learn(chunk)
        one = chunk.texts[0][None]
        for _ in range(2):
            scored = chunk.plan.windows[0].num_targets
            logits = twin.model(one[:, :-1], adapters=twin.bank)[0, -scored:]
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(logits, one[0, -scored:]).backward()
            optimizer.step()
    for a, b in zip(predictor.bank.parameters(), twin.bank.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-5)


def test_documents_learn_from_their_first_stride_on() -> None:
    """Before a whole context of them was read."""
    adapted, frozen = (
        by_position(with_rows(1, ADAPTERS), TOKENS, STARTS),
        by_position(FROZEN, TOKENS, STARTS),
    )
    early = slice(STARTS[2] + 4, STARTS[2] + CONTEXT)
    assert not torch.allclose(adapted[early], frozen[early], atol=1e-4)


def test_a_that_no_longer_learns_decays_with_the_others() -> None:
    """One optimizer steps all of a batch, until the longest of its documents has ended (#1530)."""
    tokens, starts = text((6, 30))
    predictor = DocumentPredictor(tiny_model(), ADAPTERS, rows=2)
    chunks = chunks_of(with_rows(2, ADAPTERS), tokens, starts)
    for chunk in chunks[:2]:
        predictor.learn(chunk)
    ended = {key: down[0].detach().clone() for key, down in predictor.bank.down.items()}
    for chunk in chunks[2:]:
        predictor.learn(chunk)
    kept = (1 - ADAPTERS.lr * ADAPTERS.weight_decay) ** (len(chunks) - 3)
    for key, down in predictor.bank.down.items():
        assert torch.allclose(down[0], ended[key] * kept, atol=1e-6)


def test_an_incomplete_batch_has_an_a_of_its_own() -> None:
    tokens, starts = text((30, 9, 9))  # longest first, two rows: [30] alone, then both others
    config = dataclasses.replace(with_rows(2, ADAPTERS), order="longest_first")
    predictor = DocumentPredictor(tiny_model(), ADAPTERS, rows=2)
    begun = {key: down.detach().clone() for key, down in predictor.bank.down.items()}
    chunks = chunks_of(config, tokens, starts)
    alone = [chunk for chunk in chunks if chunk.plan.batch == 0]
    for chunk in alone:
        predictor.learn(chunk)
    assert any(not torch.equal(begun[k], down) for k, down in predictor.bank.down.items())
    restored = DocumentPredictor(tiny_model(), ADAPTERS, rows=2)
    restored.load_state_dict({k: v.clone() for k, v in predictor.state_dict().items()})
    for one in (predictor, restored):
        one._open(chunks[len(alone)].plan)
        assert all(torch.equal(begun[k], down) for k, down in one.bank.down.items())


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="no adapter can sit on value_embed"):
        AdapterConfig(targets=("query", "value_embed"))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="rising numbers of documents"):
        Phased(pauses=(5, 5), adapters=None, sgd=SGD)
    with pytest.raises(ValueError, match="set ttt=None"):
        DocumentAdapters(steps=0)
    with pytest.raises(ValueError, match="betas"):
        DocumentAdapters(betas=(0.0, 1.0))
    predictor = DocumentPredictor(tiny_model(), ADAPTERS, rows=2)
    crowded = plan_documents(STARTS, len(TOKENS), CONTEXT, 4, rows=3)[0]
    with pytest.raises(ValueError, match="more than the 2 rows"):
        predictor.score(next(read_chunks([crowded], val_text(TOKENS))))
    stream = plan_chunks(len(TOKENS), CONTEXT, 16, 16)[1]
    with pytest.raises(ValueError, match="plan_documents"):
        predictor.learn(next(read_chunks([stream], val_text(TOKENS))))
