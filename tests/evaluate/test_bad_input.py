"""Texts and settings at the edge: the right result where there is one, else an error with a mend.

Every way to evaluate meets every edge; what one config class refuses by itself is tested beside it.
"""

import multiprocessing
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fairway.artifact.config_json import config_from_json, config_to_json
from fairway.evaluate.config import EvaluateConfig, make_predictor, plan_evaluation
from fairway.evaluate.learners.sgd import Sgd
from fairway.evaluate.planner import estimate, measure_rates
from fairway.evaluate.timed import evaluate_in_time
from fairway.runtime.distributed import Ranks

from .models import (
    BOS,
    CONFIGS,
    CONTEXT,
    LENGTHS,
    SGD,
    by_position,
    plans_of,
    text,
    tiny_model,
    val_text,
)

EVERY = pytest.mark.parametrize("name", CONFIGS)
BY_CHUNKS = [name for name, config in CONFIGS.items() if isinstance(config.ttt, Sgd)]
SHORT = {
    "the first of one token": (1, 19, 24),
    "one of one token": (19, 1, 24),
    "the last of one token": (19, 24, 1),
    "runs of one token": (1, 1, 1, 1, 20, 1, 1),
    "only two of one token": (1, 1),
    "one of two tokens": (2,),
}


def documents(lengths: Sequence[int]) -> tuple[Tensor, list[int]]:
    """Documents of any length, each opened by BOS, and where they start."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(2, 9, (sum(lengths),), generator=generator)
    starts = [sum(lengths[:i]) for i in range(len(lengths))]
    tokens[starts] = BOS
    return tokens, starts


@EVERY
@pytest.mark.parametrize("lengths", SHORT.values(), ids=SHORT)
def test_documents_of_one_token_leave_every_token_scored_once(
    name: str, lengths: tuple[int, ...]
) -> None:
    tokens, starts = documents(lengths)
    nats = by_position(CONFIGS[name], tokens, starts)
    assert nats.isfinite().all()
    assert (nats > 0).all()  # one that was left out is below


@EVERY
@pytest.mark.parametrize("lengths", [(2,), (1, 1, 1)], ids=str)
def test_the_shortest_texts_can_be_planned_into_a_clock(
    name: str, lengths: tuple[int, ...]
) -> None:
    (tokens, starts), config = documents(lengths), CONFIGS[name]
    plans = plans_of(config, tokens, starts)
    rates = measure_rates(tiny_model(), config, plans, repeats=1)
    assert estimate(config, rates, plans).total_seconds < 60.0
    found = evaluate_in_time(
        make_predictor(tiny_model(), config), plans, val_text(tokens), budget_seconds=60.0
    )
    assert found.score.num_tokens == len(tokens) - 1


@EVERY
def test_an_empty_validation_set_is_an_error_before_anything_is_computed(name: str) -> None:
    for num_tokens in (0, 1):
        with pytest.raises(ValueError, match=f"has {num_tokens} tokens.*nothing to score"):
            plan_evaluation(CONFIGS[name], num_tokens, [0][:num_tokens])


@pytest.mark.parametrize("chunk_tokens", [4, 8])
@pytest.mark.parametrize("name", BY_CHUNKS)
def test_chunks_shorter_than_a_context_score_every_token_and_teach(
    name: str, chunk_tokens: int
) -> None:
    """The first window scores a whole context, so the chunk after the first holds no window."""
    tokens, starts = text(LENGTHS)
    config = CONFIGS[name]
    assert isinstance(config.ttt, Sgd)
    ttt = replace(config.ttt, chunk_tokens=chunk_tokens)
    short, frozen = replace(config, ttt=ttt), replace(config, ttt=replace(ttt, lr=0.0))
    if not config.documents:
        assert any(not plan.windows for plan in plans_of(short, tokens, starts))
    learning, still = (by_position(each, tokens, starts) for each in (short, frozen))
    assert learning.isfinite().all()
    assert (learning > 0).all()
    assert torch.equal(learning[:chunk_tokens], still[:chunk_tokens])
    assert not torch.equal(learning, still)


def test_a_stride_beyond_the_models_own_context_is_refused_once_that_is_known() -> None:
    unknown = EvaluateConfig(stride=CONTEXT + 1)
    with pytest.raises(ValueError, match=f"context={CONTEXT}, stride={CONTEXT + 1}: needs 1 <="):
        unknown.resolved(CONTEXT)
    whole = EvaluateConfig(stride=CONTEXT).resolved(CONTEXT)
    windows = [window for plan in plan_evaluation(whole, 100, [0]) for window in plan.windows]
    assert {window.num_targets for window in windows[:-1]} == {CONTEXT}


def test_an_adapter_on_a_target_that_no_model_has_is_refused_as_it_is_typed() -> None:
    typed = config_to_json(CONFIGS["adapters"])
    for targets, wrong in ((["query", "router"], "router"), (["lm_head"], "lm_head")):
        typed["ttt"]["adapters"]["targets"] = targets
        with pytest.raises(ValueError, match=rf"\b{wrong}\b"):
            config_from_json(EvaluateConfig, typed)


def test_more_frozen_blocks_than_the_model_has_are_refused() -> None:
    for ttt in (replace(SGD, frozen_blocks=3), replace(SGD, frozen_blocks=3, optimizer="muon")):
        with pytest.raises(ValueError, match="frozen_blocks=3 of a model with 2"):
            make_predictor(tiny_model(), replace(CONFIGS["sgd"], ttt=ttt))


WORLD, FEW = 4, (5, 3)  # ranks; two windows where documents are kept apart, else one


def score_few(rank: int, world_size: int, folder: Path) -> None:
    """Evaluate every config as one of several ranks, and leave the nats in a file."""
    torch.set_num_threads(1)
    (tokens, starts), ranks = documents(FEW), Ranks(rank, world_size)
    found: dict[str, Tensor] = {}
    with ranks.running(torch.device("cpu"), init_method=f"file://{folder}/meet{world_size}"):
        for name, config in CONFIGS.items():
            kept: list[Tensor] = []
            evaluate_in_time(
                make_predictor(tiny_model(), config, ranks=ranks),
                plans_of(config, tokens, starts),
                val_text(tokens),
                on_chunk=lambda chunk, nats, kept=kept: kept.append(nats),
                ranks=ranks,
            )
            found[name] = torch.cat(kept)
    torch.save(found, folder / f"{world_size}.{rank}.pt")


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[int, int], dict[str, Tensor]]:
    """(ranks in all, rank) to the nats by config."""
    folder = tmp_path_factory.mktemp("few")
    fork = multiprocessing.get_context("fork")
    peers = [(size, rank) for size in (1, WORLD) for rank in range(size)]
    processes = [fork.Process(target=score_few, args=(rank, size, folder)) for size, rank in peers]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * len(peers)
    return {(s, r): torch.load(folder / f"{s}.{r}.pt", weights_only=True) for s, r in peers}


@EVERY
def test_more_ranks_than_windows_give_the_nats_of_one(name: str, few: dict) -> None:
    tokens, starts = documents(FEW)
    most = max(len(plan.windows) for plan in plans_of(CONFIGS[name], tokens, starts))
    assert most < WORLD
    alone = few[1, 0][name]
    assert len(alone) == len(tokens) - 1
    for rank in range(WORLD):
        assert (few[WORLD, rank][name] - alone).abs().max() < 1e-6
