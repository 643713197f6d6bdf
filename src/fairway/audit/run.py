"""An audit from the first call to the report: which probes there are, in what order they are asked.

What a probe is handed is in `case.py`; what it looks at, and what it concludes, is in its own file.
"""

import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from fairway.audit.byte_total import probe_bytes
from fairway.audit.case import Case, Limits, Probe
from fairway.audit.causality import probe_causality
from fairway.audit.findings import AuditReport, Finding, ProbeResult
from fairway.audit.normalization import probe_normalization
from fairway.audit.repeats import length_note, probe_coverage, probe_determinism
from fairway.audit.scorer import Now, ScorerFunction, Session, open_scorer
from fairway.audit.stream import pseudo_text
from fairway.audit.token_file import read_token_file
from fairway.audit.vocabulary import vocabulary_of
from fairway.runtime.limits import one_line
from fairway.runtime.plugins import load_plugin
from fairway.runtime.progress import Progress, silent

PROBES: dict[str, Probe] = {
    "causality": probe_causality,
    "normalization": probe_normalization,
    "determinism": probe_determinism,
    "coverage": probe_coverage,
    "bytes": probe_bytes,
}
WITHOUT_NATS = ("coverage", "bytes")  # what can be asked where the scorer gave no nats
MIN_TOKENS = 16
IMPLAUSIBLE = 0.1  # of the nats that counting tokens gives


def run_audit(
    scorer: ScorerFunction | str,
    *,
    vocab_size: int,
    tokens: np.ndarray | str | Path | None = None,
    num_bytes: int | None = None,
    text: bytes | None = None,
    tokenizer: object = None,
    seconds: float = 60.0,
    seed: int = 0,
    progress: Progress = silent,
    limits: Limits | None = None,
    probes: Sequence[Probe | str] = (),
    now: Now = time.perf_counter,
) -> AuditReport:
    """Audit any function tokens (n,) int64 -> nats (n - 1,), or (nats, bytes).

    scorer      `FILE.py:FUNCTION`, which runs in processes of its own, or a function of this one
    tokens      (n,) the stream to score, or its .npy file; None takes a pseudo-text
    num_bytes   original bytes that tokens[1:] stand for; or `text`, the original itself
    tokenizer   what the tokens were made with: a file as `fairway bytes` takes it, or what
                `vocabulary_of` does
    seconds     what the audit may take, by `now`; what it does not get to is said in the report
    progress    given the plan, then what each probe found
    probes      more of them, functions or plug-ins `package.module:name`; asked after ours

    ValueError: the address, the tokens or the numbers cannot be used. A scorer that raises, hangs
    or dies on its first call gives a report with exit status 2 instead.
    """
    begin = now()
    _check_text(tokens is not None, num_bytes, text, tokenizer)
    table = table_of_probes(PROBES, probes)
    vocabulary = None if tokenizer is None else vocabulary_of(tokenizer)
    stream = _read_tokens(tokens, vocab_size, seed)
    session = Session(open_scorer(scorer), begin + seconds, seconds, now=now)
    with contextlib.closing(session.scorer):
        progress(text=f"calling {session.scorer.name} on {len(stream):,} tokens")
        first = session.call(stream)
        case = Case(
            session=session,
            stream=stream,
            answer=first,
            vocab_size=vocab_size,
            num_bytes=num_bytes,
            original=text,
            tokenizer=vocabulary,
            made_up=tokens is None,
            limits=limits or Limits(),
            seed=seed,
            progress=progress,
            probes=table,
        )
        results, notes = _ask(case)
    return AuditReport(
        session.scorer.name,
        results,
        notes=tuple(notes),
        problem=first.problem if first.died else "",
        command=_command(scorer, vocab_size, tokens, num_bytes, seconds, seed, probes),
        calls=session.calls,
        seconds=now() - begin,
    )


def _check_text(real: bool, num_bytes: int | None, text: bytes | None, tokenizer: object) -> None:
    if not real and any(value is not None for value in (num_bytes, text, tokenizer)):
        raise ValueError(
            "bytes and tokenizers belong to a text: pass the tokens too (--tokens FILE.npy)"
        )
    if num_bytes is not None and num_bytes < 0:
        raise ValueError(f"num_bytes={num_bytes:,}: no text has fewer bytes than none")
    if text is not None and num_bytes is not None and num_bytes != len(text):
        raise ValueError(
            f"num_bytes={num_bytes:,} but the text has {len(text):,} bytes; pass one of the two"
        )


def table_of_probes(shipped: Mapping[str, Probe], more: Sequence[Probe | str]) -> dict[str, Probe]:
    """The shipped probes and then the user's, each under the name of its function.

    ValueError: a plug-in is missing or no function, or its name is taken.
    """
    table = dict(shipped)
    for spec in more:
        probe: Probe = load_plugin(spec) if isinstance(spec, str) else spec
        name = getattr(probe, "__name__", "")
        if not callable(probe) or not name:
            raise ValueError(f"{spec!r} is no function; a probe is a function Case -> ProbeResult")
        if name in table:
            raise ValueError(f"there is a probe {name!r} already; give yours another name")
        table[name] = _guarded(name, probe)
    return table


def _guarded(name: str, probe: Probe) -> Probe:
    """A user's probe, whose own error is its result: all others are asked all the same."""

    def ask(case: Case) -> ProbeResult:
        try:
            result = probe(case)
            if not isinstance(result, ProbeResult):
                raise TypeError(f"it returned a {type(result).__name__}, not a ProbeResult")
            return result
        except Exception as error:
            told = f"{type(error).__name__}: {one_line(error)}"
            return ProbeResult(name, False, f"failed: {told}", details={"broken": told})

    return ask


def _ask(case: Case) -> tuple[dict[str, ProbeResult], list[str]]:
    """Every probe's result, in the order of the table, and notes; what needs no plan is first."""
    if case.answer.died:
        return _not_run(case.probes, "the first call failed"), []
    results, notes = {name: case.result(name) for name in WITHOUT_NATS}, []
    if case.answer.nats is None or case.answer.nats.size < 2:
        results = _not_run(case.probes, "there are no nats to compare") | results
    else:
        results = {name: case.result(name) for name in case.probes}
        if results["causality"].ok and results["determinism"].ok and case.order is None:
            notes += length_note(case)
        notes += _implausible(case.tokens, case.seen.nats)
        noise = case.comparison.noise
        if noise.floor > 0:
            notes.append(
                f"equal calls differ by up to {noise.floor:.2g} nats; leaks below "
                f"{noise.threshold:.2g} cannot be seen"
            )
    results["coverage"] = _with_deaths(results["coverage"], case.session)
    return results, notes + _side_effects(case.session)


def _not_run(probes: Mapping[str, Probe], why: str) -> dict[str, ProbeResult]:
    return {name: ProbeResult(name, False, f"not run: {why}") for name in probes}


def _with_deaths(coverage: ProbeResult, session: Session) -> ProbeResult:
    """Coverage, also counting the edited streams on which the scorer gave nothing."""
    if not session.died:
        return coverage
    said = (
        f"{len(session.died):,} of {session.calls:,} calls failed, the first with: "
        f"{session.died[0]}; a scorer scores any stream over its vocabulary"
    )
    return replace(coverage, ok=False, findings=(*coverage.findings, Finding(said)))


def _implausible(tokens: np.ndarray, nats: np.ndarray) -> list[str]:
    """A score far below what counting gives is no proof of anything, but worth a look."""
    counts = np.bincount(tokens)
    shares = counts[counts > 0] / len(tokens)
    entropy = float(-(shares * np.log(shares)).sum())
    mean = float(np.nanmean(nats)) if np.isfinite(nats).any() else np.inf
    if mean >= IMPLAUSIBLE * entropy:
        return []
    return [
        f"{mean:.3g} nats per token where token counts alone give {entropy:.3g}: if the probes "
        "found nothing, look for the text among the training data or the artifact"
    ]


def _side_effects(session: Session) -> list[str]:
    """What the scorer does besides scoring."""
    notes = []
    if session.printed:
        line = session.printed.strip().splitlines() or [""]
        notes.append(f"the scorer writes to stdout ({line[0][:60]!r}); it was kept apart")
    if session.mutated:
        notes.append("the scorer writes into the tokens it is given; it was handed copies")
    return notes


def _read_tokens(tokens: np.ndarray | str | Path | None, vocab_size: int, seed: int) -> np.ndarray:
    if tokens is None:
        return pseudo_text(vocab_size, seed=seed)
    if isinstance(tokens, str | Path):
        tokens = read_token_file(Path(tokens))
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
    probes: Sequence[Probe | str],
) -> str:
    """The command line that repeats an audit, where its scorer, tokens and probes have names."""
    named = [probe for probe in probes if isinstance(probe, str)]
    if not isinstance(scorer, str) or isinstance(tokens, np.ndarray) or len(named) < len(probes):
        return ""
    options = {
        "vocab-size": vocab_size,
        "tokens": tokens,
        "num-bytes": num_bytes,
        "seconds": None if seconds == 60 else f"{seconds:g}",
        "seed": seed or None,
        "probe": " ".join(named) or None,
    }
    given = (f"--{name} {value}" for name, value in options.items() if value is not None)
    return " ".join([f"fairway audit {scorer}", *given])
