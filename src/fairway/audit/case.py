"""What every probe is handed: a scorer, a text, and what is known of the two so far.

What is known is asked for when a probe first needs it: repeated calls, the plan that shares the
time, the comparison of edited streams, the result of another probe.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from fairway.audit.comparison import ROUNDING_NATS, Comparison, Repeats, repeat
from fairway.audit.findings import ProbeResult
from fairway.audit.scorer import Answer, Session
from fairway.audit.scoring_order import ScoringOrder
from fairway.audit.token_pieces import Vocabulary
from fairway.runtime.progress import Progress, silent

CAUSALITY_SHARE = 0.35  # of the time after the first calls; normalization gets what is left
EXTRA_EDITS = 120  # far end, single tokens and moved documents, beside the cut points
OTHER_CALLS = 32  # repeats, fresh process, truncation, memory
CALLS_WANTED = 600  # a stream too slow for so many is probed on its beginning


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What an audit wants to cover when time allows.

    cuts          most cut points whose suffix is replaced; a shorter stream has all of its own
    positions     tokens whose whole distribution is added up
    repeats       repetitions of one call that measure the noise floor
    probe_tokens  a longer stream that is slow to score is probed on its beginning, no shorter
    """

    cuts: int = 1200
    positions: int = 64
    repeats: int = 3
    probe_tokens: int = 1024

    def __post_init__(self) -> None:
        if min(self.cuts, self.positions, self.probe_tokens) < 1 or self.repeats < 2:
            raise ValueError(
                f"{self}: needs at least 1 cut, 1 position, 1 probe token and 2 repeats; a single "
                "call shows neither noise nor state"
            )


@dataclass(frozen=True)
class Plan:
    """Numbers of calls.

    edits         edited streams for the causality probe, of `edits_wanted`
    positions     tokens whose distribution is added up ...
    alternatives  ... over this many tokens each; fewer than the vocabulary is a partial sum
    """

    edits: int
    edits_wanted: int
    positions: int
    alternatives: int

    @property
    def calls(self) -> int:
        return OTHER_CALLS + self.edits + self.positions * max(1, self.alternatives - 1)


def make_plan(
    num_tokens: int, vocab_size: int, call_seconds: float, seconds_left: float, limits: Limits
) -> Plan:
    """Share `seconds_left` between the probes; what they want bounds it from above.

    >>> make_plan(1024, 1024, 0.005, 58.0, Limits()).positions
    9
    """
    affordable = max(0.0, 0.9 * seconds_left / call_seconds - OTHER_CALLS)
    wanted = min(num_tokens - 2, limits.cuts) + EXTRA_EDITS
    edits = min(wanted, int(affordable * CAUSALITY_SHARE) + 1)
    left = affordable - edits
    others = max(1, vocab_size - 1)  # what the realized token costs is already known
    positions = min(limits.positions, num_tokens - 1, max(0, int(left // others)))
    alternatives = vocab_size
    if not positions:  # not one whole vocabulary; a partial sum above one still proves a fault
        positions, alternatives = 3, min(vocab_size, 1 + max(0, int(left / 3)))
    return Plan(edits, wanted, positions, alternatives)


@dataclass(kw_only=True)
class Case:
    """One scorer on one text.

    stream        (n,) int64: the text, and `answer` what the scorer answered to it
    num_bytes     original bytes that stream[1:] stand for; or `original`, the text itself
    tokenizer     the vocabulary that the stream was made with
    made_up       a pseudo-text, which nobody can have stored
    tolerance     nats that equal calls may differ by: rounding in another order, or 0 for a scorer
                  that is known to repeat itself
    probes        the table of probes, of which one may ask for another's result
    ordered       the comparison in the order of scoring, where causality finds another than the
                  stream's
    """

    session: Session
    stream: np.ndarray
    answer: Answer
    vocab_size: int
    num_bytes: int | None = None
    original: bytes | None = None
    tokenizer: Vocabulary | None = None
    made_up: bool = False
    limits: Limits = Limits()
    seed: int = 0
    tolerance: float = ROUNDING_NATS
    progress: Progress = silent
    probes: Mapping[str, "Probe"] = field(default_factory=dict)
    results: dict[str, ProbeResult] = field(default_factory=dict)
    ordered: Comparison | None = None

    def score(self, tokens: np.ndarray) -> np.ndarray | None:
        """Nats (n - 1,) of any stream (n,) over the vocabulary; None where the scorer failed."""
        return self.session.call(tokens).nats

    def score_in_order(self, tokens: np.ndarray) -> Answer:
        """The answer to a stream (n,) as it stands in the order of scoring, in that order."""
        order = self.order
        if order is None:
            return self.session.call(tokens)
        answer = self.session.call(order.restore(tokens))
        return replace(
            answer, nats=None if answer.nats is None else order.arrange_nats(answer.nats)
        )

    def result(self, name: str) -> ProbeResult:
        """What the probe of that name found; it is asked once."""
        if name not in self.results:
            self.results[name] = replace(self.probes[name](self), name=name)
            kept = self.results[name]
            self.progress(text=f"{name}: {'ok' if kept.ok else 'FAIL'}, {kept.summary}")
        return self.results[name]

    def spent(self, calls: int = 1) -> bool:
        """Whether so many more calls would take the time that the last probes need."""
        return self.session.spent(calls * self.call_seconds + self.reserved_seconds)

    @property
    def tokens(self) -> np.ndarray:
        """(n,) int64: what is probed, the text or its beginning."""
        return self._excerpt[0]

    @property
    def not_covered(self) -> tuple[str, ...]:
        """What of the text is not probed."""
        return self._excerpt[2]

    @cached_property
    def _excerpt(self) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
        """Tokens, their nats, and what is left out of a stream too slow for hundreds of calls."""
        stream, nats = self.stream, self.answer.nats
        assert nats is not None
        if len(stream) <= self.limits.probe_tokens:
            return stream, nats, ()
        again = self.session.call(stream)  # the first call also loaded the scorer
        affordable = self.session.seconds_left() / CALLS_WANTED
        if again.nats is None or again.seconds <= affordable:
            return stream, nats, ()
        keep = int(len(stream) * affordable / again.seconds)
        tokens = stream[: max(keep, self.limits.probe_tokens)]
        beginning = self.score(tokens)
        if beginning is None or beginning.size < 2:
            return stream, nats, ()
        gap = (
            f"tokens {len(tokens):,}-{len(stream) - 1:,}: a call over the whole stream takes "
            f"{again.seconds:.2g} s, so the probes used its beginning"
        )
        return tokens, beginning, (gap,)

    @cached_property
    def _timed_repeats(self) -> tuple[Repeats, float]:
        tokens, first, _ = self._excerpt
        begin = self.session.now()
        seen = repeat(self.score, tokens, self.vocab_size, first, self.limits.repeats)
        call_seconds = max(1e-6, (self.session.now() - begin) / (self.limits.repeats + 1))
        # A scorer that died is loaded again within its next call, hence the second term.
        self.session.call_limit_seconds = max(2.0, 20 * call_seconds) + 2 * self.load_seconds
        return seen, call_seconds

    @property
    def seen(self) -> Repeats:
        """Equal calls on `tokens`, and one on an edit of them."""
        return self._timed_repeats[0]

    @property
    def call_seconds(self) -> float:
        return self._timed_repeats[1]

    @property
    def load_seconds(self) -> float:
        """Before the first answer of a fresh process, as far as the first call shows it."""
        return self.answer.seconds

    @property
    def reserved_seconds(self) -> float:
        """For determinism: a fresh process and a few calls."""
        return 1.2 * self.load_seconds + 8 * self.call_seconds

    @cached_property
    def comparison(self) -> Comparison:
        """Of every edited stream that any probe scores, in stream order."""
        seen = self.seen
        return Comparison(self.score, self.tokens, seen.nats, seen.noise(), self.vocab_size)

    @property
    def in_order(self) -> Comparison:
        """The comparison in the order of scoring, as far as it is known by now."""
        return self.ordered or self.comparison

    @property
    def order(self) -> ScoringOrder | None:
        """What is known of the order of scoring; None: that of the stream, nothing told."""
        return self.in_order.order

    def rearranged(self, order: ScoringOrder) -> Comparison:
        """A comparison of streams that stand in another order; lengths of documents are told."""

        def score(arranged: np.ndarray) -> np.ndarray | None:
            nats = self.score(order.restore(arranged))
            return None if nats is None else order.arrange_nats(nats)

        stream = self.comparison
        return Comparison(
            score,
            order.arrange(stream.tokens),
            order.arrange_nats(stream.nats),
            stream.noise,
            self.vocab_size,
            order=order,
        )

    @cached_property
    def plan(self) -> Plan:
        size, seconds = len(self.tokens), self.call_seconds
        left = self.session.seconds_left() - 1.2 * self.load_seconds
        plan = make_plan(size, self.vocab_size, seconds, left, self.limits)
        self.progress(
            text=f"plan: a call over {size:,} tokens takes {1000 * seconds:.3g} ms\n"
            f"  causality      {plan.edits:,} edited streams\n"
            f"  normalization  {plan.positions:,} positions x {plan.alternatives:,} of "
            f"{self.vocab_size:,} alternatives\n"
            f"  about {plan.calls:,} calls, {plan.calls * seconds:.1f} s"
        )
        return plan


Probe = Callable[[Case], ProbeResult]
