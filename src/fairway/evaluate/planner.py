"""How long an evaluation will take on this machine, and the largest one that fits its time.

A few batches and steps over random tokens are timed (which also lets compilers compile, without a
single token of the validation text), then multiplied by what the plans hold. What happens when the
estimate was wrong is in `timed.py`.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product, zip_longest

import torch

from fairway.evaluate.chunks import Chunk, ChunkPlan
from fairway.evaluate.config import EvaluateConfig, make_predictor, plan_text
from fairway.evaluate.predictor import ALONE
from fairway.model.gpt import GPT
from fairway.runtime.distributed import Ranks
from fairway.runtime.progress import Progress, silent
from fairway.tokens.val_text import ValText

Now = Callable[[], float]
NUM_IDS = 64  # random text over few ids repeats itself, as real text does: n-grams have work to do


@dataclass(frozen=True, kw_only=True)
class Range:
    """What may be chosen, each from best to worst: a finer stride counts before more epochs, and
    those before exact windows."""

    strides: tuple[int, ...] = (64,)  # choices of tokens that a window scores
    epochs: tuple[int, ...] = (3,)  # choices of passes over each chunk, where it has any
    cached: tuple[int | None, ...] = (None,)  # choices of windows that share keys; None: exact ones

    def __post_init__(self) -> None:
        lists = (self.strides, self.epochs, self.cached)
        if not all(lists) or min(self.strides + self.epochs) < 1:
            raise ValueError(
                f"strides={self.strides}, epochs={self.epochs}, cached={self.cached}: name at "
                "least one of each, and no stride or number of epochs below 1"
            )


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Seconds an evaluation will take, by stage.

    lessons    of learning from each chunk, a pause after it included
    documents  the first ones of the text, which alone it is for; None: all of it
    """

    config: EvaluateConfig
    score_seconds: float
    learn_seconds: float
    phase_seconds: float
    lessons: tuple[float, ...]
    documents: int | None = None

    @property
    def lesson_seconds(self) -> float:
        """The longest that learning from one chunk will take."""
        return max(self.lessons, default=0.0)

    @property
    def total_seconds(self) -> float:
        return self.score_seconds + self.learn_seconds + self.phase_seconds

    def __str__(self) -> str:
        setting = self.config.learner.describe()
        stages = {
            "scoring": self.score_seconds,
            "learning": self.learn_seconds,
            "learning from all finished documents": self.phase_seconds,
        }
        parts = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in stages.items() if seconds)
        shared = f"keys shared by {self.config.cached} windows" if self.config.cached else ""
        chosen = ", ".join(
            part for part in (f"stride {self.config.stride}", shared, setting) if part
        )
        return f"{chosen}: {parts or 'no time'}"


class NothingFits(ValueError):
    """No evaluation that is allowed fits its time.

    fastest  of those that were estimated
    add      to a command line, for the first documents that fit
    """

    add = "--fit"

    def __init__(self, words: str, fastest: EvaluateConfig) -> None:
        super().__init__(words)
        self.fastest = fastest


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
    """Time a few batches and steps of the plans' usual shape over random tokens."""
    plan = _sample(plans, config, ranks)
    chunk = _random_chunk(plan, model.config.vocab_size)
    predictor = make_predictor(model, config, ranks=ranks)
    if not config.learns:
        score = _fastest(lambda: predictor.score(chunk), repeats, now)
        return Rates(score=score / plan.num_inputs)
    lessons: list[Chunk] = []  # each scored before it is learned from, as what is known is kept

    def score_anew() -> None:
        lessons.append(replace(chunk))
        predictor.score(lessons[-1])

    score = learn = math.inf
    for _ in range(repeats + 1):  # the first may compile
        score = min(score, _seconds(score_anew, now))
        learn = min(learn, _seconds(lambda: predictor.learn(lessons[-1]), now))
    return Rates(
        score=score / plan.num_inputs,
        learn=learn / _lesson_tokens(plan, config),
        phase=_measure_pause(model, config, ranks, repeats, now),
    )


def _measure_pause(
    model: GPT, config: EvaluateConfig, ranks: Ranks, repeats: int, now: Now
) -> float:
    """Seconds for each token that what learns at pauses takes; 0 where nothing does."""
    found = config.learner.between_chunks([])
    if found is None:
        return 0.0
    learner, _ = found
    predictor = learner.predictor(model, config, seed=0, ranks=ranks)
    size = learner.step_targets(config) or config.known_context
    plan = ChunkPlan(0, 2, (), (), ((0, size + 1),))
    chunk = _random_chunk(plan, model.config.vocab_size)
    seconds = _fastest(lambda: predictor.learn(chunk), repeats, now)
    return seconds / learner.lesson_tokens(plan)


def estimate(config: EvaluateConfig, rates: Rates, plans: Sequence[ChunkPlan]) -> Estimate:
    """What the plans will take at these rates."""
    lessons = [rates.learn * _lesson_tokens(plan, config) for plan in plans[:-1]] + [0.0]
    _, tokens = config.learner.between_chunks(plans) or (None, [])
    phases = [rates.phase * number for number in tokens]
    return Estimate(
        config=config,
        score_seconds=rates.score * sum(plan.num_inputs for plan in plans),
        learn_seconds=sum(lessons),
        phase_seconds=sum(phases),
        lessons=tuple(a + b for a, b in zip_longest(lessons, phases, fillvalue=0.0)),
    )


def largest_that_fits(
    model: GPT,
    config: EvaluateConfig,
    text: ValText,
    budget_seconds: float,
    *,
    choices: Range | None = None,
    reserve: float = 0.1,
    ranks: Ranks = ALONE,
    progress: Progress = silent,
    now: Now = time.perf_counter,
) -> Estimate:
    """The first choice whose estimate leaves `reserve` of the budget free.

    choices   None: the config as it is, or nothing
    progress  called with a line for each choice that was estimated

    Raises `NothingFits` with every estimate where none fits. All ranks get the same answer.
    """
    config = config.resolved(model.config.train_context)
    room = budget_seconds * (1.0 - reserve)
    tried = []
    for choice in [config] if choices is None else _choices(config, choices):
        plans = plan_text(choice, text)
        rates = measure_rates(model, choice, plans, ranks=ranks, now=now)
        found = _agreed(estimate(choice, rates, plans), ranks)
        fits = found.total_seconds <= room
        tried.append(found)
        progress(text=f"{found}; {'fits' if fits else 'does not fit'} {budget_seconds:.0f} s")
        if fits:
            return found
    fastest = min(tried, key=lambda found: found.total_seconds)
    listed = "; ".join(str(found) for found in tried)
    raise NothingFits(
        f"nothing allowed fits {budget_seconds:.0f} s with a tenth in reserve ({listed}). The "
        f"fastest needs {fastest.total_seconds / (1.0 - reserve):.0f} s: allow that much, larger "
        "strides or fewer epochs, set ttt=None, or score the first documents that fit",
        fastest.config,
    )


def _choices(config: EvaluateConfig, choices: Range) -> list[EvaluateConfig]:
    """Best first, each once: epochs may make no difference."""
    found: list[EvaluateConfig] = []
    for stride, epochs, cached in product(choices.strides, choices.epochs, choices.cached):
        ttt = None if config.ttt is None else config.ttt.with_epochs(epochs)
        choice = replace(config, stride=stride, ttt=ttt, cached=cached)
        if choice not in found:
            found.append(choice)
    return found


def _agreed(found: Estimate, ranks: Ranks) -> Estimate:
    """Rank 0's estimate on every rank: one choice, whatever each of them measured."""
    stages = (found.score_seconds, found.learn_seconds, found.phase_seconds)
    seconds = torch.tensor([*stages, *found.lessons], dtype=torch.float64)
    score, learn, phase, *lessons = ranks.broadcast(seconds).tolist()
    return replace(
        found,
        score_seconds=score,
        learn_seconds=learn,
        phase_seconds=phase,
        lessons=tuple(lessons),
    )


def _sample(plans: Sequence[ChunkPlan], config: EvaluateConfig, ranks: Ranks) -> ChunkPlan:
    """A chunk from the middle, cut down to two batches of each rank and one step of learning."""
    plan = max(plans[len(plans) // 3 : 2 * len(plans) // 3 + 1], key=lambda p: len(p.windows))
    most = 2 * config.rows * ranks.world_size
    size = config.learner.step_targets(config)
    if size is None:
        size = sum(window.num_targets for window in plan.windows[:most])
    spans = tuple((begin, min(end, begin + size + 1)) for begin, end in plan.spans[:most])
    ends = (False,) * len(plan.ends[:most])
    return replace(
        plan,
        index=0,
        num_chunks=2,
        windows=plan.windows[:most],
        rows=plan.rows[:most],
        spans=spans,
        ends=ends,
        places=plan.places[:most],
    )


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


def _lesson_tokens(plan: ChunkPlan, config: EvaluateConfig) -> int:
    return max(1, config.learner.lesson_tokens(plan))


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
