"""A run's promises as checks: what was promised, whether it was kept, and the sentence to print.

A promise nobody tried to keep is "not run", which is neither kept nor broken; one that nobody made
has "no limit". Tables are in `table.py`.
"""

from dataclasses import dataclass
from typing import Literal

from fairway.audit.findings import AuditReport
from fairway.evaluate.diagnostic import WARNING, WARNINGS
from fairway.proof.certificate import SettledFacts
from fairway.result import ArtifactResult, EvaluateResult, ProofResult, RunResult, TrainResult

State = Literal["kept", "broken", "not run", "no limit"]

NOT_RUN = "not run"


@dataclass(frozen=True)
class Check:
    """One promise. `short` fits a label, `sentence` says it with its numbers."""

    name: str
    state: State
    short: str
    sentence: str


def checks(result: RunResult) -> list[Check]:
    """Every promise of a run, in the order a judge would ask for them."""
    return [
        cap_check(result.artifact),
        seconds_check("Training", result.train),
        seconds_check("Evaluation", result.evaluate),
        proof_check(result.proof, result.score.tokens if result.score else None),
        audit_check(result.audit),
    ]


def cap_check(artifact: ArtifactResult | None) -> Check:
    name = "Artifact"
    if artifact is None:
        return Check(name, "not run", "no artifact", "Not run: no artifact was packed.")
    total, cap = artifact.bytes_total, artifact.cap_bytes
    if cap is None:
        return Check(name, "no limit", _megabytes(total), f"{total:,} bytes; no cap was set.")
    short = f"{_megabytes(total)} of {_megabytes(cap)}"
    if artifact.over_cap:
        sentence = f"{total:,} bytes against a cap of {cap:,}: {total - cap:,} bytes over."
        return Check(name, "broken", short, sentence)
    sentence = f"{total:,} bytes under a cap of {cap:,}: {cap - total:,} bytes to spare."
    return Check(name, "kept", short, sentence)


def seconds_check(name: str, part: TrainResult | EvaluateResult | None) -> Check:
    if part is None:
        return Check(name, "not run", NOT_RUN, "Not run.")
    seconds, budget = part.seconds, part.budget_seconds
    if budget is None:
        return Check(name, "no limit", f"{seconds:,.0f} s", f"{seconds:,.1f} s; no budget was set.")
    short = f"{seconds:,.0f} of {budget:,.0f} s"
    sentence = f"{seconds:,.1f} s of a budget of {budget:,.1f} s"
    if part.over_time:
        excess = f"{seconds - budget:,.2f} s too long"
        return Check(name, "broken", f"{short}: over time", f"Over time: {sentence}, {excess}.")
    return Check(name, "kept", short, f"{sentence}.")


def proof_check(proof: ProofResult | None, scored_tokens: int | None) -> Check:
    """scored_tokens  of the whole score; None where the text was not scored"""
    name = "Proof"
    if proof is None:
        sentence = "Not run: nothing was decoded. `fairway prove` does it."
        return Check(name, "not run", NOT_RUN, sentence)
    tokens = count(proof.tokens)
    coded, claimed = fixed(proof.coded_bits_per_byte, 5), fixed(proof.claimed_bits_per_byte, 5)
    if not proof.decoded_equal:
        return Check(
            name,
            "broken",
            "text not returned",
            f"Decoding {tokens} tokens did not return the text. The score has no proof and "
            f"should not be used.",
        )
    if not proof.holds:
        return Check(
            name,
            "broken",
            "not the claimed length",
            f"The text came back, but its code takes {coded} bits per byte where the score claims "
            f"{claimed} for the same {tokens} tokens.",
        )
    if proof.settled is not None:
        return settled_check(proof, proof.settled)
    partial = scored_tokens is not None and proof.tokens < scored_tokens
    part = f"the first {tokens} of {count(scored_tokens)}" if partial else f"all {tokens}"
    return Check(
        name,
        "kept",
        f"{tokens} tokens decode" if partial else "decodes",
        f"The model in the artifact wrote {part} tokens of the validation text into "
        f"{count(proof.coded_bytes)} bytes, and the same model read them back: every byte is "
        f"equal. That is {coded} bits per byte in a real file; the score claims {claimed} for the "
        f"same tokens.",
    )


def settled_check(proof: ProofResult, facts: SettledFacts) -> Check:
    """A proof that holds, in settled arithmetic."""
    tokens, decoded = count(proof.tokens), proof.decoded_tokens
    read = f"the first {count(decoded)} of" if decoded is not None else "all of"
    short = f"{count(decoded)} of {tokens} tokens decode" if decoded is not None else "decodes"
    seen = ""
    if facts.deviation is not None and facts.state_deviation is not None:
        seen = (
            f" Read again otherwise, its logits moved by {facts.deviation:.1e} nats at most, and "
            f"what it learned by {facts.state_deviation:.1e} of its size."
        )
    return Check(
        "Proof",
        "kept",
        short,
        f"The model in the artifact wrote all {tokens} tokens into {count(proof.coded_bytes)} "
        f"bytes, and the same model read {read} them back: every byte is equal. That is "
        f"{fixed(proof.coded_bits_per_byte, 5)} bits per byte in a real file; the score claims "
        f"{fixed(proof.claimed_bits_per_byte, 5)}, and no other number would do. The arithmetic is "
        f"settled: logits are rounded to {facts.grid:.4f} nats, what is learned to "
        f"2^-{facts.state_bits} of its size, and what lies within {facts.margin:.0e} nats or "
        f"{facts.state_margin:.0e} of that size of a boundary is announced: {count(facts.ties)} "
        f"ties in {count(facts.tie_bytes)} of the bytes.{seen} Any machine that computes in "
        f"float64 can decode it.",
    )


def audit_check(audit: AuditReport | None) -> Check:
    name = "Audit"
    if audit is None:
        return Check(name, "not run", NOT_RUN, "Not run: `fairway audit` does it.")
    if audit.verdict == "legal":
        held = f": {', '.join(audit.probes)} held under attack" if audit.probes else ""
        return Check(name, "kept", "legal", f"Legal{held}.")
    if audit.verdict == "illegal":
        failed = [probe.name for probe in audit.probes.values() if not probe.ok]
        return Check(name, "broken", "illegal", f"Illegal: the scorer failed {', '.join(failed)}.")
    if audit.verdict == "unknown":
        return Check(name, "not run", audit.verdict, f"No verdict: {audit.problem or audit.broken}")
    said = "; ".join(
        finding.said
        for probe in audit.probes.values()
        if not probe.ok
        for finding in probe.findings
    )
    verdict = audit.verdict.capitalize()
    return Check(name, "broken", audit.verdict, f"{verdict}, and legal in all else: {said}.")


def diagnostics(result: RunResult) -> list[tuple[str, float, str]]:
    """(name, bits per byte, what it must be called) of numbers that are not scores.

    The words are ours, so that no file can leave them out.
    """
    return [
        (
            name,
            found.illegal_bits_per_byte,
            f"{WARNINGS.get(name, WARNING)}; the honest score is "
            f"{fixed(found.honest_bits_per_byte, 5)}",
        )
        for name, found in result.diagnostics.items()
    ]


def fixed(value: float | None, digits: int, *, sign: bool = False) -> str:
    """A number with that many decimals, `not run` where there is none.

    >>> fixed(1.06, 4), fixed(-0.5, 1, sign=True), fixed(None, 4)
    ('1.0600', '-0.5', 'not run')
    """
    return NOT_RUN if value is None else f"{value:{'+' if sign else ''},.{digits}f}"


def count(value: int | None) -> str:
    """A whole number with its thousands apart.

    >>> count(1048576), count(None)
    ('1,048,576', 'not run')
    """
    return NOT_RUN if value is None else f"{value:,}"


def _megabytes(num_bytes: int) -> str:
    """Decimal megabytes, as caps are counted; rounded up, since a cap is not met by rounding.

    >>> _megabytes(15_974_311), _megabytes(16_000_000), _megabytes(16_000_001)
    ('15.98 MB', '16 MB', '16.01 MB')
    """
    if num_bytes < 10_000:
        return f"{num_bytes:,} B"
    unit, name = (1_000_000, "MB") if num_bytes >= 1_000_000 else (1_000, "kB")
    hundredths = -(-num_bytes * 100 // unit)
    return f"{hundredths / 100:.2f}".rstrip("0").rstrip(".") + f" {name}"
