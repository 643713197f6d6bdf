"""An audit from the first call to the report: what is asked, in what order, within what time.

The plan is made once a call has been timed, and is told before the long part begins. What a probe
looks at, and what it concludes, is in its own file.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fairway.audit.byte_total import probe_bytes
from fairway.audit.causality import (
    Watch,
    causality_result,
    planned_edits,
    probe_memory,
    probe_suffixes,
)
from fairway.audit.findings import AuditReport, Finding, ProbeResult
from fairway.audit.normalization import probe_normalization
from fairway.audit.repeats import (
    length_note,
    probe_coverage,
    probe_determinism,
    repeat,
)
from fairway.audit.scorer import Answer, ScorerFunction, Session, open_scorer
from fairway.audit.stream import pseudo_text

PROBES = ("causality", "normalization", "determinism", "coverage", "bytes")
MIN_TOKENS = 16
CAUSALITY_SHARE = 0.35  # of the time after the first calls; normalization gets what is left
EXTRA_EDITS = 120  # far end, single tokens and moved documents, beside the cut points
OTHER_CALLS = 32  # repeats, fresh process, truncation, memory


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What an audit wants to cover when time allows.

    cuts          most cut points whose suffix is replaced; a shorter stream has all of its own
    positions     prices whose whole distribution is added up
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

    edits         edited streams for the causality probe
    positions     prices whose distribution is added up ...
    alternatives  ... over this many tokens each; fewer than the vocabulary is a partial sum
    """

    edits: int
    positions: int
    alternatives: int
    call_seconds: float
    num_tokens: int
    vocab_size: int

    @property
    def calls(self) -> int:
        return OTHER_CALLS + self.edits + self.positions * max(1, self.alternatives - 1)

    @property
    def seconds(self) -> float:
        return self.calls * self.call_seconds

    def text(self) -> str:
        """The plan and its estimate, a line each."""
        partial = "" if self.alternatives >= self.vocab_size else f" of {self.vocab_size:,}"
        return (
            f"plan: a call over {self.num_tokens:,} tokens takes "
            f"{1000 * self.call_seconds:.3g} ms\n"
            f"  causality      {self.edits:,} edited streams\n"
            f"  normalization  {self.positions:,} positions x {self.alternatives:,}{partial} "
            "alternatives\n"
            f"  about {self.calls:,} calls, {self.seconds:.1f} s"
        )


def make_plan(
    num_tokens: int, vocab_size: int, call_seconds: float, seconds_left: float, limits: Limits
) -> Plan:
    """Share `seconds_left` between the probes; what they want bounds it from above.

    >>> make_plan(1024, 1024, 0.005, 58.0, Limits()).positions
    9
    """
    affordable = max(0.0, 0.9 * seconds_left / call_seconds - OTHER_CALLS)
    wanted_edits = min(num_tokens - 2, limits.cuts) + EXTRA_EDITS
    edits = min(wanted_edits, int(affordable * CAUSALITY_SHARE) + 1)
    left = affordable - edits
    others = max(1, vocab_size - 1)  # the realized token's price is already known
    positions = min(limits.positions, num_tokens - 1, max(0, int(left // others)))
    if positions:
        return Plan(edits, positions, vocab_size, call_seconds, num_tokens, vocab_size)
    # Not one whole vocabulary fits. A partial sum above one still proves a fault.
    alternatives = min(vocab_size, 1 + max(0, int(left / 3)))
    return Plan(edits, 3, alternatives, call_seconds, num_tokens, vocab_size)


def run_audit(
    scorer: ScorerFunction | str,
    *,
    vocab_size: int,
    tokens: np.ndarray | str | Path | None = None,
    num_bytes: int | None = None,
    text: bytes | None = None,
    tokenizer: Any = None,
    seconds: float = 60.0,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
    limits: Limits | None = None,
) -> AuditReport:
    """Audit any function tokens (n,) int64 -> nats (n - 1,), or (nats, bytes).

    scorer      `FILE.py:FUNCTION`, which runs in processes of its own, or a function of this one
    tokens      (n,) the stream to price, or its .npy file; None takes a pseudo-text
    num_bytes   original bytes that tokens[1:] stand for; or `text`, the original itself
    tokenizer   .model file or SentencePieceProcessor the tokens were made with
    seconds     what the audit may take; what it does not get to is said in the report
    progress    told the plan, then each stage, a line or a few at a time

    ValueError: the address, the tokens or the numbers cannot be used. A scorer that raises, hangs
    or dies on its first call gives a report with exit status 2 instead.
    """
    begin = time.perf_counter()
    tell = progress or (lambda line: None)
    limits = limits or Limits()
    command = _command(scorer, vocab_size, tokens, num_bytes, seconds, seed)
    if tokens is None and (num_bytes is not None or text is not None or tokenizer is not None):
        raise ValueError(
            "bytes and tokenizers belong to a text: pass the tokens too (--tokens FILE.npy)"
        )
    if text is not None and num_bytes is not None and num_bytes != len(text):
        raise ValueError(
            f"num_bytes={num_bytes:,} but the text has {len(text):,} bytes; pass one of the two"
        )
    stream = _read_tokens(tokens, vocab_size, seed)
    session = Session(open_scorer(scorer), begin + seconds, seconds)
    try:
        tell(f"calling {session.scorer.name} on {len(stream):,} tokens")
        first = session.call(stream)
        if first.died:
            return AuditReport(
                session.scorer.name,
                _not_run("the first call failed"),
                problem=first.problem,
                command=command,
                calls=session.calls,
                seconds=time.perf_counter() - begin,
            )
        audit = _Audit(session, vocab_size, limits, seed, tell)
        coverage = probe_coverage(session, stream, vocab_size, first)
        byte_result = probe_bytes(
            first, stream, num_bytes=num_bytes, text=text, tokenizer=tokenizer
        )
        if first.nats is None or first.nats.size < 2:
            results = _not_run("there are no prices to compare")
        else:
            results = audit.run(stream, first, tokens is not None)
        results = {**results, "coverage": audit.with_deaths(coverage), "bytes": byte_result}
        return AuditReport(
            session.scorer.name,
            {name: results[name] for name in PROBES},
            notes=(*audit.notes, *audit.manners()),
            command=command,
            calls=session.calls,
            seconds=time.perf_counter() - begin,
        )
    finally:
        session.scorer.close()


@dataclass
class _Audit:
    """The probes that call the scorer again, in the order in which they need each other."""

    session: Session
    vocab_size: int
    limits: Limits
    seed: int
    tell: Callable[[str], None]

    def __post_init__(self) -> None:
        self.notes: list[str] = []

    def run(self, stream: np.ndarray, first: Answer, real_text: bool) -> dict[str, ProbeResult]:
        session, load_seconds = self.session, first.seconds
        tokens, first, excerpt = self._excerpt(stream, first)
        assert first.nats is not None
        start = time.perf_counter()
        seen = repeat(session, tokens, self.vocab_size, first.nats, self.limits.repeats)
        call_seconds = max(1e-6, (time.perf_counter() - start) / (self.limits.repeats + 1))
        # A scorer that died is loaded again within its next call, hence the second term.
        session.call_limit_seconds = max(2.0, 20 * call_seconds) + 2 * load_seconds
        watch = Watch(tokens, seen.nats, seen.noise(), self.vocab_size)

        left = session.seconds_left() - 1.2 * load_seconds  # for the fresh process
        plan = make_plan(len(tokens), self.vocab_size, call_seconds, left, self.limits)
        self.tell(plan.text())
        edits = planned_edits(len(tokens), plan.edits, self.limits.cuts, self.seed)
        wanted = min(len(tokens) - 2, self.limits.cuts) + EXTRA_EDITS
        missed = excerpt
        if plan.edits < wanted:
            missed += (f"{wanted - plan.edits:,} of {wanted:,} edits left out for want of time",)
        kept_back = 1.2 * load_seconds + 8 * call_seconds
        session.stop_at -= kept_back
        missed += probe_suffixes(session, watch, edits, call_seconds)
        self.tell(f"causality: {len(watch.compared):,} edits, {len(watch.leaks):,} leaks")
        memory = probe_memory(session, tokens, self.vocab_size, call_seconds) if real_text else None
        normalization = probe_normalization(
            session, watch, plan.positions, plan.alternatives, call_seconds, self.seed
        )
        self.tell(f"normalization: {normalization.summary}")
        session.stop_at += kept_back
        determinism = probe_determinism(session, seen, load_seconds, call_seconds)
        self.tell(f"determinism: {determinism.summary}")
        causality = causality_result(watch, normalization.ok, memory, missed)
        if causality.ok and determinism.ok:
            note = length_note(session, seen, watch.noise, call_seconds)
            self.notes += [note] if note else []
        self._judge_level(tokens, seen.nats)
        if watch.noise.floor > 0:
            self.notes.append(
                f"equal calls differ by up to {watch.noise.floor:.2g} nats; leaks below "
                f"{watch.noise.threshold:.2g} cannot be seen"
            )
        return {
            "causality": causality,
            "normalization": replace(
                normalization, not_covered=(*excerpt, *normalization.not_covered)
            ),
            "determinism": determinism,
        }

    def _excerpt(
        self, stream: np.ndarray, first: Answer
    ) -> tuple[np.ndarray, Answer, tuple[str, ...]]:
        """The beginning of a stream that is too slow to be priced hundreds of times."""
        if len(stream) <= self.limits.probe_tokens:
            return stream, first, ()
        again = self.session.call(stream)  # the first call also loaded the scorer
        affordable = self.session.seconds_left() / 600
        if again.nats is None or again.seconds <= affordable:
            return stream, first, ()
        keep = int(len(stream) * affordable / again.seconds)
        tokens = stream[: max(keep, self.limits.probe_tokens)]
        answer = self.session.call(tokens)
        if answer.nats is None or answer.nats.size < 2:
            return stream, first, ()
        gap = (
            f"tokens {len(tokens):,}-{len(stream) - 1:,}: a call over the whole stream takes "
            f"{again.seconds:.2g} s, so the probes used its beginning",
        )
        return tokens, answer, gap

    def _judge_level(self, tokens: np.ndarray, nats: np.ndarray) -> None:
        """A score far below what counting gives is no proof of anything, but worth a look."""
        counts = np.bincount(tokens)
        shares = counts[counts > 0] / len(tokens)
        entropy = float(-(shares * np.log(shares)).sum())
        mean = float(np.nanmean(nats)) if np.isfinite(nats).any() else np.inf
        if mean < 0.1 * entropy:
            self.notes.append(
                f"{mean:.3g} nats per token where token counts alone give {entropy:.3g}: if the "
                "probes found nothing, look for the text among the training data or the artifact"
            )

    def with_deaths(self, coverage: ProbeResult) -> ProbeResult:
        """Coverage, also counting the edited streams on which the scorer gave nothing."""
        died = self.session.died
        if not died:
            return coverage
        said = (
            f"{len(died):,} of {self.session.calls:,} calls failed, the first with: {died[0]}; a "
            "scorer prices any stream over its vocabulary"
        )
        return replace(coverage, ok=False, findings=(*coverage.findings, Finding(said)))

    def manners(self) -> list[str]:
        """What the scorer does besides pricing."""
        notes = []
        if self.session.printed:
            line = self.session.printed.strip().splitlines() or [""]
            notes.append(f"the scorer writes to stdout ({line[0][:60]!r}); it was kept apart")
        if self.session.mutated:
            notes.append("the scorer writes into the tokens it is given; it was handed copies")
        return notes


def _not_run(why: str) -> dict[str, ProbeResult]:
    return {name: ProbeResult(name, False, f"not run: {why}") for name in PROBES}


def _read_tokens(tokens: np.ndarray | str | Path | None, vocab_size: int, seed: int) -> np.ndarray:
    if tokens is None:
        return pseudo_text(vocab_size, seed=seed)
    if isinstance(tokens, str | Path):
        if not Path(tokens).is_file():
            raise ValueError(f"{tokens} does not exist; --tokens takes a .npy file of token ids")
        tokens = np.load(tokens, allow_pickle=False)
    stream = np.asarray(tokens)
    if stream.ndim != 1 or stream.dtype.kind not in "iu" or stream.size < MIN_TOKENS:
        raise ValueError(
            f"tokens are {stream.dtype} of shape {stream.shape}; needs a row of at least "
            f"{MIN_TOKENS} integers"
        )
    if stream.min() < 0 or stream.max() >= vocab_size:
        raise ValueError(
            f"tokens run from {stream.min()} to {stream.max()}, but vocab_size={vocab_size}; pass "
            "the --vocab-size of the tokenizer that made them"
        )
    return stream.astype(np.int64)


def _command(
    scorer: ScorerFunction | str,
    vocab_size: int,
    tokens: np.ndarray | str | Path | None,
    num_bytes: int | None,
    seconds: float,
    seed: int,
) -> str:
    """The command line that repeats an audit, where its scorer and tokens have names."""
    if not isinstance(scorer, str) or isinstance(tokens, np.ndarray):
        return ""
    parts = [f"fairway audit {scorer} --vocab-size {vocab_size}"]
    parts += [f"--tokens {tokens}"] if tokens is not None else []
    parts += [f"--num-bytes {num_bytes}"] if num_bytes is not None else []
    parts += [f"--seconds {seconds:g}"] if seconds != 60 else []
    parts += [f"--seed {seed}"] if seed else []
    return " ".join(parts)
