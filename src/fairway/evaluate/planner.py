"""How long an evaluation will take on this machine, and the largest one that fits its time.

A few passes and steps over random tokens are timed (which also lets compilers compile, without a
single token of the validation text), then multiplied by what the plans hold. What happens when the
estimate was wrong is in `timed.py`.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

import torch

from fairway.evaluate.config import EvaluateConfig, make_predictor, plan_evaluation
from fairway.evaluate.learners.documents import DocumentAdapters, Phased
from fairway.evaluate.learners.sgd import Sgd
from fairway.evaluate.predictor import ALONE, Chunk, ChunkPlan
from fairway.model.gpt import GPT
from fairway.runtime.distributed import Ranks

Now = Callable[[], float]
NUM_IDS = 64  # random text over few ids repeats itself, as real text does: n-grams have work to do


@dataclass(frozen=True, kw_only=True)
class Range:
    """What may be chosen, each from best to worst; a finer stride counts before more epochs."""

    strides: tuple[int, ...] = (64,)
    epochs: tuple[int, ...] = (3,)  # of Sgd; without it, epochs make no difference

    def __post_init__(self) -> None:
        if not self.strides or not self.epochs or min(self.strides + self.epochs) < 1:
            raise ValueError(
                f"strides={self.strides}, epochs={self.epochs}: name at least one of each, and "
                "none below 1"
            )


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Seconds an evaluation will take, by stage.

    lesson_seconds  the longest that learning from one chunk will take
    """

    config: EvaluateConfig
    score_seconds: float
    learn_seconds: float
    phase_seconds: float
    lesson_seconds: float

    @property
    def total_seconds(self) -> float:
        return self.score_seconds + self.learn_seconds + self.phase_seconds

    def __str__(self) -> str:
        epochs = f", {self.config.ttt.epochs} epochs" if isinstance(self.config.ttt, Sgd) else ""
        stages = {
            "scoring": self.score_seconds,
            "learning": self.learn_seconds,
            "learning from all finished documents": self.phase_seconds,
        }
        parts = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in stages.items() if seconds)
        return f"stride {self.config.stride}{epochs}: {parts or 'no time'}"


@dataclass(frozen=True, kw_only=True)
class Rates:
    """Seconds for each token that goes into a model, as measured."""

    score: float
    learn: float = 0.0
    phase: float = 0.0


def measure_rates(
    model: GPT,
    config: EvaluateConfig,
    plans: Sequence[ChunkPlan],
    *,
    ranks: Ranks = ALONE,
    repeats: int = 2,
    now: Now = time.perf_counter,
) -> Rates:
    """Time a few passes and steps of the plans' usual shape over random tokens; `model` is kept."""
    plan = _sample(plans, config, ranks)
    chunk = _random_chunk(plan, model.config.vocab_size)
    predictor = make_predictor(model, config, ranks=ranks)
    inputs = sum(window.num_inputs for window in plan.windows)
    if config.ttt is None and config.mixture is None:
        score = _fastest(lambda: predictor.score(chunk), repeats, now)
        return Rates(score=score / inputs)
    lessons: list[Chunk] = []  # each priced before it is learned from, as what is known is kept

    def price() -> None:
        lessons.append(replace(chunk))
        predictor.score(lessons[-1])

    score = learn = math.inf
    for _ in range(repeats + 1):  # the first may compile
        score = min(score, _seconds(price, now))
        learn = min(learn, _seconds(lambda: predictor.learn(lessons[-1]), now))
    tokens = _learned_tokens(plan, config)
    phase = 0.0
    if isinstance(config.ttt, Phased):
        local = replace(config, ttt=config.ttt.sgd, documents=False, mixture=None)
        predictor = make_predictor(model, local, ranks=ranks)
        size = local.ttt.batch_sequences * _context(config) if isinstance(local.ttt, Sgd) else 0
        stretch = ChunkPlan(0, 2, (), (), ((0, size + 1),))
        lesson = _random_chunk(stretch, model.config.vocab_size)
        phase = _fastest(lambda: predictor.learn(lesson), repeats, now)
        phase /= _learned_tokens(stretch, local)
    return Rates(score=score / inputs, learn=learn / tokens, phase=phase)


def estimate(config: EvaluateConfig, rates: Rates, plans: Sequence[ChunkPlan]) -> Estimate:
    """What the plans will take at these rates."""
    inputs = sum(window.num_inputs for plan in plans for window in plan.windows)
    lessons = [rates.learn * _learned_tokens(plan, config) for plan in plans[:-1]]
    phases = [0.0]
    if isinstance(config.ttt, Phased):
        epochs = config.ttt.sgd.epochs
        phases += [rates.phase * epochs * tokens for tokens in _phases(plans, config.ttt.pauses)]
    return Estimate(
        config=config,
        score_seconds=rates.score * inputs,
        learn_seconds=sum(lessons),
        phase_seconds=sum(phases),
        lesson_seconds=max([*lessons, 0.0]) + max(phases),
    )


def largest_that_fits(
    model: GPT,
    config: EvaluateConfig,
    choices: Range,
    budget_seconds: float,
    num_tokens: int,
    document_starts: Sequence[int],
    *,
    reserve: float = 0.1,
    ranks: Ranks = ALONE,
    say: Callable[[str], None] = print,
    now: Now = time.perf_counter,
) -> Estimate:
    """The first choice whose estimate leaves `reserve` of the budget free; all are told to `say`.

    Raises ValueError with every estimate where none fits. All ranks get the same answer.
    """
    config = config.resolved(model.config.train_context)
    room = budget_seconds * (1.0 - reserve)
    tried = []
    for stride, epochs in product(choices.strides, choices.epochs):
        choice = replace(config, stride=stride)
        if isinstance(choice.ttt, Sgd):
            choice = replace(choice, ttt=replace(choice.ttt, epochs=epochs))
        elif epochs != choices.epochs[0]:
            continue
        plans = plan_evaluation(choice, num_tokens, document_starts)
        rates = measure_rates(model, choice, plans, ranks=ranks, now=now)
        found = _agreed(estimate(choice, rates, plans), ranks)
        fits = found.total_seconds <= room
        tried.append(found)
        say(f"{found}; {'fits' if fits else 'does not fit'} {budget_seconds:.0f} s")
        if fits:
            return found
    fastest = min(tried, key=lambda found: found.total_seconds)
    listed = "; ".join(str(found) for found in tried)
    raise ValueError(
        f"nothing allowed fits {budget_seconds:.0f} s with a tenth in reserve ({listed}). The "
        f"fastest needs {fastest.total_seconds / (1.0 - reserve):.0f} s: allow that much, larger "
        "strides or fewer epochs, or set ttt=None"
    )


def _agreed(found: Estimate, ranks: Ranks) -> Estimate:
    """Rank 0's estimate on every rank: one choice, whatever each of them measured."""
    names = ("score_seconds", "learn_seconds", "phase_seconds", "lesson_seconds")
    seconds = torch.tensor([getattr(found, name) for name in names], dtype=torch.float64)
    return replace(found, **dict(zip(names, ranks.broadcast(seconds).tolist(), strict=True)))


def _context(config: EvaluateConfig) -> int:
    if config.context is None:
        raise ValueError(
            "the context is not known yet: use config.resolved(model.config.train_context)"
        )
    return config.context


def _sample(plans: Sequence[ChunkPlan], config: EvaluateConfig, ranks: Ranks) -> ChunkPlan:
    """A chunk from the middle, cut down to two passes of each rank and one step of learning."""
    plan = max(plans[len(plans) // 3 : 2 * len(plans) // 3 + 1], key=lambda p: len(p.windows))
    most = 2 * config.rows * ranks.world_size
    spans = plan.spans[:most]
    if isinstance(config.ttt, Sgd):
        size = config.ttt.batch_sequences * _context(config)
        spans = tuple((begin, min(end, begin + size + 1)) for begin, end in spans)
    ends = (False,) * len(plan.ends[:most])
    return ChunkPlan(0, 2, plan.windows[:most], plan.rows[:most], spans, ends)


def _random_chunk(plan: ChunkPlan, vocab_size: int) -> Chunk:
    generator = torch.Generator().manual_seed(0)

    def text(length: int) -> torch.Tensor:
        return torch.randint(min(NUM_IDS, vocab_size), (length,), generator=generator)

    return Chunk(
        plan,
        tuple(text(window.stop - window.start) for window in plan.windows),
        tuple(text(end - begin) for begin, end in plan.spans),
        0,
    )


def _learned_tokens(plan: ChunkPlan, config: EvaluateConfig) -> int:
    """Tokens that go into the model when this chunk is learned from; at least 1."""
    if isinstance(config.ttt, Sgd):
        return max(1, config.ttt.epochs * sum(end - begin - 1 for begin, end in plan.spans))
    steps = 1
    if isinstance(config.ttt, DocumentAdapters):
        steps = config.ttt.steps
    elif isinstance(config.ttt, Phased) and config.ttt.adapters is not None:
        steps = config.ttt.adapters.steps
    ends = plan.ends or (False,) * len(plan.windows)
    lasting = (w.num_inputs for w, end in zip(plan.windows, ends, strict=True) if not end)
    return max(1, steps * sum(lasting))


def _phases(plans: Sequence[ChunkPlan], pauses: Sequence[int]) -> Iterator[int]:
    """Tokens learned from at each pause, as `PhasedPredictor` will take them."""
    begun: set[int] = set()
    finished: set[int] = set()
    tokens, waiting = 0, list(pauses)
    for plan in plans[:-1]:
        begun.update(plan.rows)
        finished.update(row for row, ends in zip(plan.rows, plan.ends, strict=True) if ends)
        tokens += plan.num_targets
        if waiting and waiting[0] <= len(finished) == len(begun):
            waiting = [pause for pause in waiting if pause > len(finished)]
            yield tokens


def _fastest(work: Callable[[], object], repeats: int, now: Now) -> float:
    """Seconds of the fastest of `repeats` runs after a first one, which may compile."""
    work()
    return min(_seconds(work, now) for _ in range(repeats))


def _seconds(work: Callable[[], object], now: Now) -> float:
    _wait()
    begin = now()
    work()
    _wait()
    return now() - begin


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
