"""One, two and three processes score and learn alike."""

import multiprocessing
from pathlib import Path

import pytest
import torch

from fairway.evaluate.config import make_predictor
from fairway.evaluate.timed import CheckpointConfig, evaluate_in_time
from fairway.runtime.distributed import Ranks

from .models import CONFIGS, plans_of, text, tiny_model, val_text

TOKENS, STARTS = text((25, 3, 30, 12))
NAMES = ("frozen", "frozen cached", "sgd", "muon", "phased", "mixture of adapters")


def work(rank: int, world_size: int, folder: Path) -> None:
    """Evaluate every config as one of several ranks, and leave the nats in a file."""
    torch.set_num_threads(1)
    ranks, found = Ranks(rank, world_size), {}
    saved = CheckpointConfig(path=folder / f"saved{world_size}", every_seconds=0.0)
    with ranks.running(torch.device("cpu"), init_method=f"file://{folder}/meet{world_size}"):
        for name in NAMES:
            config, kept = CONFIGS[name], []
            evaluate_in_time(
                make_predictor(tiny_model(), config, ranks=ranks),
                plans_of(config, TOKENS, STARTS),
                val_text(TOKENS),
                budget_seconds=1e6,  # so that the ranks have to agree on the time, too
                checkpoint=saved if name == "sgd" else None,
                on_chunk=lambda chunk, nats, kept=kept: kept.append(nats),
                ranks=ranks,
            )
            found[name] = torch.cat(kept)
    torch.save(found, folder / f"{world_size}.{rank}.pt")


@pytest.fixture(scope="module")
def nats(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[int, int], dict]:
    """(ranks in all, rank) to the nats by config. Forked, since starting Python takes seconds."""
    folder = tmp_path_factory.mktemp("ranks")
    fork = multiprocessing.get_context("fork")
    peers = [(size, rank) for size in (1, 2, 3) for rank in range(size)]
    processes = [fork.Process(target=work, args=(rank, size, folder)) for size, rank in peers]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * len(peers)
    return {(s, r): torch.load(folder / f"{s}.{r}.pt", weights_only=True) for s, r in peers}


@pytest.mark.parametrize("name", NAMES)
def test_the_number_of_ranks_changes_no_nats(name: str, nats: dict) -> None:
    alone = nats[1, 0][name]
    assert len(alone) == len(TOKENS) - 1
    for size in (2, 3):  # with three, some chunks have fewer windows or documents than ranks
        together = nats[size, 0][name]
        bound = 1e-6 if name.startswith("frozen") else 1e-3
        assert (together - alone).abs().max() < bound
        assert abs(together.sum() - alone.sum()) / alone.sum() < bound


@pytest.mark.parametrize("name", NAMES)
def test_every_rank_books_the_same_nats(name: str, nats: dict) -> None:
    for size in (2, 3):
        for rank in range(1, size):
            assert torch.equal(nats[size, 0][name], nats[size, rank][name])
