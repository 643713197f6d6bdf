"""What test_exchange.py starts: `python ranks_of_a_miniature.py PART WORLD_SIZE FOLDER`, where PART
is names of recipes or `lost HOW`.

One process imports everything and forks the ranks, so that eight of them cost little more than one.
Each rank leaves what it found in FOLDER/RANK.json.
"""

import hashlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import count
from pathlib import Path

import torch
from torch import Tensor

from fairway.model.gpt import GPT
from fairway.quant.qat import late_rounding
from fairway.recipes.diff import override
from fairway.recipes.recipe import Recipe
from fairway.recipes.registry import recipe, smoke
from fairway.runtime.distributed import Ranks, supervised
from fairway.train.clock import StepClock
from fairway.train.divergence import TrainingDiverged
from fairway.train.exchange import GradientExchange
from fairway.train.loop import Batch, training_steps
from fairway.train.param_groups import build_optimizers
from fairway.train.train_state import checkpoint_state, restore

STEPS = 4
PEER_SECONDS = 4.0


def miniature(name: str, micro_batches: int) -> Recipe:
    changes = {"train.batch.micro_batches": micro_batches, "train.batch.micro_batch_ramp": None}
    return override(smoke(recipe(name), steps=STEPS), changes)


def dealt(chosen: Recipe, ranks: Ranks) -> Iterator[Batch]:
    """This rank's of one stream of micro-batches."""
    batch, generator = chosen.train.batch, torch.Generator().manual_seed(1)
    while True:
        for place in range(batch.micro_batches):
            shape = (batch.rows, batch.context + 1)
            tokens = torch.randint(2, chosen.model.vocab_size, shape, generator=generator)
            if place % ranks.world_size == ranks.rank:
                yield tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()


def digest(tensors: Mapping[str, Tensor]) -> str:
    found = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        # A sum with a zero beside it may have lost the sign of a zero.
        found.update(name.encode() + (tensor.detach() + 0.0).contiguous().numpy().tobytes())
    return found.hexdigest()


def trained(
    chosen: Recipe, ranks: Ranks, *, overlapped: bool = True, resumed: bool = False
) -> dict:
    """Weights and optimizer's state after all steps, as hashes; losses and norms of each."""
    torch.manual_seed(0)
    model = GPT(chosen.model)
    rounding = late_rounding(chosen.round_from, chosen.round_as or chosen.quant)
    optimizers = build_optimizers(
        model, chosen.train.optimizer, muon_dtype=torch.float32, ranks=ranks
    )
    batches, losses, norms = dealt(chosen, ranks), [], []
    for step in training_steps(
        model, batches, chosen.train, optimizers, StepClock(STEPS), ranks=ranks,
        milestones=rounding, overlapped=overlapped,
    ):  # fmt: skip
        assert step.grad_norm is not None
        losses.append(step.loss.item())
        norms.append(step.grad_norm.item())
        if resumed:
            saved = checkpoint_state(model, optimizers, step=step.number)
            restore(saved, model, optimizers)
    return {
        "weights": digest(dict(model.named_parameters())),
        "state": digest(optimizers.state_dict()),
        "sample": model.get_parameter("blocks.1.mlp.up.weight").flatten()[:8].tolist(),
        "losses": losses,
        "norms": norms,
    }


def equality(ranks: Ranks, names: Sequence[str]) -> dict:
    """What the ranks train together, and what one trains alone."""
    found = {}
    for name in names:  # a micro-batch on each rank
        chosen = miniature(name, ranks.world_size)
        found[name] = {
            "overlapped": trained(chosen, ranks),
            "one after the other": trained(chosen, ranks, overlapped=False),
            "resumed": trained(chosen, ranks, resumed=True),
        }
        if ranks.is_main:
            found[name]["alone"] = trained(chosen, Ranks())
    for kind, micro_batches in (("more", ranks.world_size + 1), ("fewer", ranks.world_size // 2)):
        chosen = miniature(names[0], micro_batches)
        found[kind] = {"overlapped": trained(chosen, ranks)}
        if ranks.is_main:
            found[kind]["alone"] = trained(chosen, Ranks())
    return found


def happens(what: str) -> Callable[[], None]:
    """To the last rank, once some of a step's gradients are under way."""
    if what == "kill":
        return lambda: os.kill(os.getpid(), signal.SIGKILL)
    if what == "stop":
        return lambda: os.kill(os.getpid(), signal.SIGSTOP)
    if what == "hang":
        return lambda: time.sleep(60)
    return lambda: print(1 / 0)


def lost(ranks: Ranks, what: str) -> dict:
    """The last rank falls out in the middle of the backward pass of step 3."""
    send, calls = GradientExchange._send_next, count()

    def falls_out(exchange: GradientExchange) -> None:
        send(exchange)
        if ranks.rank == ranks.world_size - 1 and next(calls) == 2 * len(exchange.buckets) + 1:
            happens(what)()

    GradientExchange._send_next = falls_out  # type: ignore[method-assign]
    with ranks.lockstep():
        trained(miniature("pr1413", ranks.world_size), ranks)
    return {}


def broken_gradient(ranks: Ranks) -> dict:
    """Not a number, on the last rank alone: of a matrix with an owner, and of one without."""
    found = {}
    for name in ("blocks.1.mlp.up.weight", "embed.weight"):
        chosen, calls = miniature("pr1413", ranks.world_size), count()
        torch.manual_seed(0)
        model = GPT(chosen.model)

        def spoil(gradient: Tensor, calls: Iterator[int] = calls) -> Tensor:
            bad = ranks.rank == ranks.world_size - 1 and next(calls) == 2
            return gradient * float("nan") if bad else gradient

        dict(model.named_parameters())[name].register_hook(spoil)
        optimizers = build_optimizers(
            model, chosen.train.optimizer, muon_dtype=torch.float32, ranks=ranks
        )
        steps = training_steps(
            model, dealt(chosen, ranks), chosen.train, optimizers, StepClock(STEPS), ranks=ranks
        )
        before = {}
        try:
            for _ in steps:
                before = {n: p.detach().clone() for n, p in model.named_parameters()}
        except TrainingDiverged as error:
            found[name] = [error.step, error.tensor, str(error)]
        assert all(torch.equal(before[n], p) for n, p in model.named_parameters())  # untouched
    return found


def main(part: str, ranks: Ranks, folder: Path) -> int:
    with ranks.running(
        torch.device("cpu"),
        init_method=f"file://{folder}/meeting",
        timeout_seconds=60,
        peer_seconds=PEER_SECONDS,
    ):
        found = run(part, ranks)
        (folder / f"{ranks.rank}.json").write_text(json.dumps(found))
    return 0


def run(part: str, ranks: Ranks) -> dict:
    if part.startswith("lost "):
        return lost(ranks, part.removeprefix("lost "))
    found = {"equal": equality(ranks, part.split(",")), "broken": broken_gradient(ranks)}
    with ranks.lockstep():
        ranks.barrier()
        time.sleep(0.2 * (ranks.rank != 0))
        ranks.barrier()
    return found | {"waiting_share": ranks.meter.waiting_share}


def start(part: str, world_size: int, folder: Path) -> int:
    """The number of ranks that failed."""
    children = []
    for rank in range(world_size):
        child = os.fork()
        if not child:
            ranks = Ranks(rank, world_size, rank, world_size)
            supervised(partial(main, part, ranks, folder), ranks)
        children.append(child)
    return sum(os.waitpid(child, 0)[1] != 0 for child in children)


if __name__ == "__main__":
    torch.set_num_threads(1)
    _, part, world_size, folder = sys.argv
    sys.exit(start(part, int(world_size), Path(folder)))
