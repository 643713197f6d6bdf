import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fairway.runtime.stopping import listening
from fairway.train.clock import StepClock, WallClock
from fairway.train.config import BatchConfig, TrainConfig, build_clock, context_warmup
from fairway.train.divergence import TrainingDiverged
from fairway.train.loop import (
    Batch,
    Milestone,
    OutOfBatches,
    Step,
    TrainingInterrupted,
    training_steps,
)
from fairway.train.muon import MuonConfig
from fairway.train.param_groups import OptimizerConfig, build_optimizers
from fairway.train.schedule import ContextWarmup, Curriculum, MomentumWarmup, Warmdown, When
from fairway.train.train_state import checkpoint_state, read_train_state, restore, save_checkpoint

V, D, T = 13, 8, 6


class Tiny(nn.Module):
    """Predicts the next token from the current one; can count, break and loop."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(V, D)
        self.blocks = nn.ModuleList([nn.Linear(D, D, bias=False), nn.Linear(D, D, bias=False)])
        self.unused = nn.Parameter(torch.ones(3))
        self.head = nn.Linear(D, V, bias=False)
        self.loops_active = True
        self.shapes: list[tuple[int, ...]] = []
        self.looped: list[bool] = []
        self.dtypes: list[torch.dtype] = []

    def loss(self, tokens: Tensor, targets: Tensor) -> Tensor:
        self.shapes.append(tuple(tokens.shape))
        self.looped.append(self.loops_active)
        x = self.embed(tokens)
        for block in self.blocks:
            hidden = block(x)
            self.dtypes.append(hidden.dtype)
            x = x + torch.tanh(hidden)
        return F.cross_entropy(self.head(x).float().flatten(0, 1), targets.flatten())


def batches(rows: int = 4, context: int = T, seed: int = 1) -> Iterator[Batch]:
    generator = torch.Generator().manual_seed(seed)
    while True:
        tokens = torch.randint(V, (rows, context), generator=generator)
        yield tokens, (3 * tokens + 1) % V


def config(steps: int = 8, **changes) -> TrainConfig:
    base = TrainConfig(
        steps=steps,
        batch=BatchConfig(rows=4, context=T),
        optimizer=OptimizerConfig(muon=MuonConfig(lr=0.05, momentum=0.9)),
    )
    return replace(base, **changes)


def train(model: Tiny, c: TrainConfig, data: Iterator[Batch] | None = None, **more) -> list[Step]:
    optimizers = build_optimizers(model, c.optimizer, muon_dtype=torch.float32)
    data = batches() if data is None else data
    return list(training_steps(model, data, c, optimizers, build_clock(c), **more))


def test_training_lowers_the_loss_and_counts_its_steps() -> None:
    steps = train(Tiny(), config(60))
    assert [step.number for step in steps] == list(range(1, 61))
    assert [step.progress for step in steps] == [n / 60 for n in range(60)]
    assert all(step.tokens == 4 * T for step in steps)
    assert steps[-1].loss < 0.5 * steps[0].loss
    assert not steps[0].loss.requires_grad


def test_same_seed_and_steps_give_the_same_bits() -> None:
    one, other = Tiny(), Tiny()
    losses = [[step.loss for step in train(model, config())] for model in (one, other)]
    assert torch.equal(torch.stack(losses[0]), torch.stack(losses[1]))
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)


def test_many_small_micro_batches_are_one_large_batch() -> None:
    whole, parts = Tiny(), Tiny()
    large = [step.loss for step in train(whole, config(), batches(rows=4))]

    def quarters() -> Iterator[Batch]:
        for tokens, targets in batches(rows=4):
            yield from zip(tokens.split([1, 2, 1]), targets.split([1, 2, 1]), strict=True)

    c = config(batch=BatchConfig(rows=1, context=T, micro_batches=3))
    small = [step.loss for step in train(parts, c, quarters())]
    torch.testing.assert_close(torch.stack(small), torch.stack(large), rtol=1e-5, atol=1e-6)


def test_a_resumed_run_gives_the_losses_of_an_uninterrupted_one(tmp_path) -> None:
    c = config(10, momentum_warmup=MomentumWarmup(steps=6), loops_at=0.3)
    straight = Tiny()
    losses = [step.loss for step in train(straight, c)]

    first = Tiny()
    optimizers = build_optimizers(first, c.optimizer, muon_dtype=torch.float32)
    steps = training_steps(first, batches(), c, optimizers, StepClock(10))
    half = [step.loss for step in islice(steps, 4)]
    path = tmp_path / "checkpoint.safetensors"
    save_checkpoint(path, checkpoint_state(first, optimizers, step=4))

    resumed = Tiny()
    train(resumed, config(2))  # any other past is forgotten
    fresh = build_optimizers(resumed, c.optimizer, muon_dtype=torch.float32)
    checkpoint = read_train_state(path)
    restore(checkpoint, resumed, fresh)
    rest = training_steps(
        resumed,
        islice(batches(), checkpoint.step, None),
        c,
        fresh,
        StepClock(10),
        first_step=checkpoint.step,
    )
    half += [step.loss for step in rest]
    assert torch.equal(torch.stack(half), torch.stack(losses))
    for a, b in zip(straight.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)


def test_loops_start_where_the_config_says() -> None:
    model = Tiny()
    train(model, config(10, loops_at=0.35))
    assert model.looped == [False] * 4 + [True] * 6
    model = Tiny()
    train(model, config(3))
    assert model.looped == [True] * 3  # None leaves them as they are


def test_milestones_come_once_and_before_the_step() -> None:
    called: list[str] = []
    late = Milestone("late", When(lr_scale_below=0.5), lambda m: called.append("late"))
    early = Milestone("early", When(progress=0.0), lambda m: called.append("early"))
    c = config(10, warmdown=Warmdown(fraction=1.0))
    model, seen = Tiny(), []
    optimizers = build_optimizers(model, c.optimizer)
    for _ in training_steps(
        model, batches(), c, optimizers, StepClock(10), milestones=(late, early)
    ):
        seen.append(list(called))
    assert seen[0] == ["early"]
    assert seen[5] == ["early"]  # at progress 0.5 the scale is 0.5, not below it
    assert seen[6:] == [["early", "late"]] * 4


def test_the_curricula_change_rows_and_micro_batches_and_waste_no_token() -> None:
    model = Tiny()
    batch = BatchConfig(
        rows=4,
        context=6,
        micro_batches=2,
        context_curriculum=Curriculum(stages=((0.5, 2), (1.0, 6))),
        micro_batch_ramp=Curriculum(stages=((0.25, 1), (1.0, 2))),
    )
    steps = train(model, config(4, batch=batch))
    assert model.shapes == [(12, 2)] * 3 + [(4, 6)] * 4
    assert [step.tokens for step in steps] == [24, 48, 48, 48]


def test_the_rate_rises_anew_after_the_context_has_changed() -> None:
    """Also in a run that was stopped while it rose."""
    stages = Curriculum(stages=((0.25, 2), (0.75, 3), (1.0, 6)))
    batch = BatchConfig(rows=4, context=6, context_curriculum=stages, context_warmup=4)
    c = config(12, batch=batch, warmdown=Warmdown(fraction=0.0))

    def rates(first: int, stop: int, warmup: ContextWarmup) -> list[float]:
        model, found = Tiny(), []
        optimizers = build_optimizers(model, c.optimizer)
        set_rates = optimizers.set
        optimizers.set = lambda **given: (found.append(given["lr_scale"]), set_rates(**given))  # type: ignore[method-assign]
        clock, options = StepClock(12), {"first_step": first, "warmup": warmup}
        steps = training_steps(model, batches(), c, optimizers, clock, **options)
        for step in steps:
            if step.number == stop:
                break
        return found

    expected = [1.0] * 3 + [0.25, 0.5, 0.75, 1.0, 1.0, 1.0] + [0.25, 0.5, 0.75]
    assert rates(0, 12, context_warmup(batch)) == expected
    stopped = context_warmup(batch)
    begun = rates(0, 5, stopped)
    resumed = context_warmup(batch)
    resumed.context, resumed.since = stopped.context, stopped.since
    assert begun + rates(5, 12, resumed) == expected


def test_the_gradient_is_clipped_as_the_library_does() -> None:
    """Seen in the momentum: after one step it is the gradient itself."""
    clipped, plain = Tiny(), Tiny()
    c = config(1, grad_clip=0.01)
    optimizers = build_optimizers(clipped, c.optimizer)
    list(training_steps(clipped, batches(), c, optimizers, StepClock(1)))
    plain.loss(*next(batches())).backward()
    assert plain.unused.grad is None
    torch.nn.utils.clip_grad_norm_(plain.parameters(), 0.01)
    for name, momentum in optimizers.matrix_optimizer.state_dict().items():
        torch.testing.assert_close(momentum, plain.get_parameter(name).grad)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_caller_decides_the_precision_of_the_forward_pass(dtype: torch.dtype) -> None:
    model = Tiny()
    train(model, config(2), compute_dtype=dtype)
    assert set(model.dtypes) == {dtype}
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_a_model_that_casts_by_itself_is_given_the_precision_and_left_as_it_was() -> None:
    seen = []

    class Casting(Tiny):
        compute_dtype = torch.float32

        def loss(self, tokens: Tensor, targets: Tensor) -> Tensor:
            seen.append((self.compute_dtype, torch.is_autocast_enabled("cpu")))
            return super().loss(tokens, targets)

    model = Casting()
    train(model, config(2), compute_dtype=torch.bfloat16)
    assert seen == [(torch.bfloat16, False)] * 2
    assert model.compute_dtype == torch.float32


class Breaking(Tiny):
    def __init__(self, at: int, how: str) -> None:
        super().__init__()
        self.at, self.how = at, how

    def loss(self, tokens: Tensor, targets: Tensor) -> Tensor:
        loss = super().loss(tokens, targets)
        if len(self.shapes) != self.at:
            return loss
        if self.how == "loss":
            return loss + torch.tensor(float("inf"))
        # Finite forwards, 0 * inf backwards: the square root has no slope at zero.
        return loss + (self.get_parameter("blocks.1.weight") * 0.0).sum().abs().sqrt()


@pytest.mark.parametrize(
    ("how", "tensor", "words"),
    [
        ("loss", None, "the loss is inf.*only the loss"),
        ("gradient", "blocks.1.weight", "not finite is the gradient of blocks.1.weight"),
    ],
)
def test_divergence_names_the_step_and_the_tensor_and_spares_the_weights(how, tensor, words):
    model = Breaking(at=3, how=how)
    with pytest.raises(TrainingDiverged, match=rf"in step 3: .*{words}.*lower them") as caught:
        train(model, config(10))
    assert (caught.value.step, caught.value.tensor) == (3, tensor)
    assert all(p.isfinite().all() for p in model.parameters())


def test_divergence_names_a_broken_weight_rather_than_what_it_broke() -> None:
    model = Tiny()
    with torch.no_grad():
        model.get_parameter("blocks.1.weight")[0, 0] = float("nan")
    with pytest.raises(TrainingDiverged, match=r"is the weight blocks.1.weight"):
        train(model, config(2))


def test_batches_that_end_too_soon_are_an_error_that_says_when() -> None:
    with pytest.raises(OutOfBatches, match=r"ended after step 3, at 30.0% .*steps=3"):
        train(Tiny(), config(10), islice(batches(), 3))


def test_ctrl_c_stops_between_two_steps_with_no_batch_lost() -> None:
    model, c = Tiny(), config(10)
    data = batches()
    with listening() as stop, stop.looked_at():
        steps = training_steps(
            model,
            data,
            c,
            build_optimizers(model, c.optimizer),
            StepClock(10),
            stop=lambda: stop.asked,
        )
        assert [step.number for step in islice(steps, 2)] == [1, 2]
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(TrainingInterrupted, match="after step 2"):
            next(steps)
        stop.signal = None
    assert torch.equal(next(data)[0], next(islice(batches(), 2, None))[0])


def test_a_run_by_the_clock_ends_with_it() -> None:
    now = [0.0]

    def slow_batches() -> Iterator[Batch]:
        for batch in batches():
            now[0] += 0.25
            yield batch

    c = replace(config(), steps=None, seconds=5.0)
    model = Tiny()
    optimizers = build_optimizers(model, c.optimizer)
    clock = WallClock(5.0, now=lambda: now[0])
    steps = list(training_steps(model, slow_batches(), c, optimizers, clock))
    assert len(steps) == 20
    assert [step.progress for step in steps] == pytest.approx([n / 20 for n in range(20)])
    assert steps[-1].lr_scale == pytest.approx(0.05 / 0.72)


def test_the_model_is_put_back_into_training_mode() -> None:
    model, c = Tiny(), config(3)
    modes = []
    for _ in training_steps(
        model, batches(), c, build_optimizers(model, c.optimizer), StepClock(3)
    ):
        modes.append(model.training)
        model.eval()
    assert modes == [True] * 3


def test_what_the_model_or_the_batches_cannot_do_is_said() -> None:
    class Loopless(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(V, D)

    c = config(loops_at=0.5)
    model = Loopless()
    with pytest.raises(ValueError, match=r"loops_at=0.5, but Loopless has no loops to"):
        next(
            training_steps(model, batches(), c, build_optimizers(model, c.optimizer), StepClock(1))
        )
    batch = BatchConfig(rows=4, context=4, context_curriculum=Curriculum(stages=((1.0, 4),)))
    with pytest.raises(ValueError, match="rows of 6 tokens cannot be cut into rows of 4"):
        train(Tiny(), config(batch=batch))


def test_one_rank_clips_its_own_gradients_as_the_average() -> None:
    """They are the same there: what differs is what several ranks make of it."""
    each, average = Tiny(), Tiny()
    each.load_state_dict(average.state_dict())
    train(each, config(3, grad_clip=0.01, clip_on_each_rank=True))
    train(average, config(3, grad_clip=0.01))
    for a, b in zip(each.parameters(), average.parameters(), strict=True):
        assert torch.equal(a, b)
