"""A run's promises as checks: what was promised, whether it was kept, and the sentence to print.

Reads the dictionary of `result.json` only. A promise nobody tried to keep is "not run", which is
neither kept nor broken; one that nobody made has "no limit". Tables are in `table.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from fairway.proof.certificate import CODER_BITS, TOLERANCE_BITS_PER_BYTE

Result = Mapping[str, Any]
State = Literal["kept", "broken", "not run", "no limit"]

NOT_RUN = "not run"
ILLEGAL = "illegal: learned from a token before scoring it"  # the only words for such a number
ILLEGAL_DIAGNOSTICS = frozenset({"adapt_then_score"})


@dataclass(frozen=True)
class Check:
    """One promise. `short` fits a label, `sentence` says it with its numbers."""

    name: str
    state: State
    short: str
    sentence: str


def checks(result: Result) -> list[Check]:
    """Every promise of a run, in the order a judge would ask for them."""
    return [
        cap_check(result),
        seconds_check(result, "train", "Training"),
        seconds_check(result, "evaluate", "Evaluation"),
        proof_check(result),
        audit_check(result),
    ]


def cap_check(result: Result) -> Check:
    artifact = section(result, "artifact")
    total, cap = artifact.get("bytes_total"), artifact.get("cap_bytes")
    if total is None:
        return Check("Artifact", "not run", "no artifact", "Not run: no artifact was packed.")
    if cap is None:
        return Check("Artifact", "no limit", _megabytes(total), f"{total:,} bytes; no cap was set.")
    fits = total <= cap
    room = f"{abs(cap - total):,} bytes {'to spare' if fits else 'over'}"
    return Check(
        "Artifact",
        "kept" if fits else "broken",
        f"{_megabytes(total)} of {_megabytes(cap)}",
        f"{total:,} bytes under a cap of {cap:,}: {room}."
        if fits
        else f"{total:,} bytes against a cap of {cap:,}: {room}.",
    )


def seconds_check(result: Result, key: str, name: str) -> Check:
    part = section(result, key)
    seconds, budget = part.get("seconds"), part.get("budget_seconds")
    if seconds is None:
        return Check(name, "not run", NOT_RUN, "Not run.")
    if budget is None:
        return Check(name, "no limit", f"{seconds:,.0f} s", f"{seconds:,.1f} s; no budget was set.")
    within = seconds <= budget
    return Check(
        name,
        "kept" if within else "broken",
        f"{seconds:,.0f} of {budget:,.0f} s",
        f"{seconds:,.1f} s of a budget of {budget:,.1f} s"
        + (f": {seconds - budget:,.2f} s too long." if not within else "."),
    )


def proof_check(result: Result) -> Check:
    proof = section(result, "proof")
    if not proof:
        return Check(
            "Proof", "not run", NOT_RUN, "Not run: nothing was decoded. `fairway prove` does it."
        )
    tokens, coded = proof.get("tokens"), proof.get("coded_bytes")
    if not proof.get("decoded_equal"):
        return Check(
            "Proof",
            "broken",
            "text not returned",
            f"Decoding {count(tokens)} tokens did not return the text. The score has no proof and "
            f"should not be used.",
        )
    bits, claimed = proof.get("coded_bits_per_byte"), proof.get("claimed_bits_per_byte")
    if not _code_is_the_score(proof):
        return Check(
            "Proof",
            "broken",
            "not the claimed length",
            f"The text came back, but its code takes {fixed(bits, 5)} bits per byte where the "
            f"score claims {fixed(claimed, 5)} for the same {count(tokens)} tokens.",
        )
    total = section(result, "score").get("tokens")
    partial = tokens is not None and total is not None and tokens < total
    part = f"the first {count(tokens)} of {count(total)}" if partial else f"all {count(tokens)}"
    return Check(
        "Proof",
        "kept",
        f"{count(tokens)} tokens decode" if partial else "decodes",
        f"The model in the artifact wrote {part} tokens of the validation text into "
        f"{count(coded)} bytes, and the same model read them back: every byte is equal. That is "
        f"{fixed(bits, 5)} bits per byte in a real file; the score claims {fixed(claimed, 5)} for "
        f"the same tokens.",
    )


def _code_is_the_score(proof: Result) -> bool:
    """As `Certificate.holds` has it, for a result that kept only some of the certificate."""
    if "holds" in proof:
        return bool(proof["holds"])
    coded, bits, claimed = (
        proof.get(key) for key in ("coded_bytes", "coded_bits_per_byte", "claimed_bits_per_byte")
    )
    if not coded or not bits or claimed is None:
        return False
    num_bytes = 8 * coded / bits
    return abs(bits - claimed) <= TOLERANCE_BITS_PER_BYTE + CODER_BITS / num_bytes


def audit_check(result: Result) -> Check:
    audit = section(result, "audit")
    verdict, probes = audit.get("verdict"), section(audit, "probes")
    if verdict is None:
        return Check("Audit", "not run", NOT_RUN, "Not run: `fairway audit` does it.")
    failed = [name for name, probe in probes.items() if not probe.get("ok")]
    if verdict == "legal":
        sentence = f"Legal: {', '.join(probes)} held under attack." if probes else "Legal."
        return Check("Audit", "kept", "legal", sentence)
    if verdict == "illegal":
        sentence = f"Illegal: the scorer failed {', '.join(failed) or 'the audit'}."
        return Check("Audit", "broken", "illegal", sentence)
    problem = audit.get("problem", "the scorer could not be run")
    return Check("Audit", "not run", str(verdict), f"No verdict: {problem}")


def diagnostics(result: Result) -> list[tuple[str, float | None, str]]:
    """(name, bits per byte, what it must be called) of numbers that are not scores."""
    rows = []
    for name, entry in section(result, "diagnostics").items():
        told = entry if isinstance(entry, Mapping) else {"bits_per_byte": entry}
        illegal = name in ILLEGAL_DIAGNOSTICS or bool(told.get("illegal"))
        value = told.get("illegal_bits_per_byte", told.get("bits_per_byte"))
        words = ILLEGAL if illegal else "a diagnostic, not a score"
        if "honest_bits_per_byte" in told:
            words += f"; the honest score is {fixed(told['honest_bits_per_byte'], 5)}"
        rows.append((name, value, words))
    return rows


def section(result: Result, key: str) -> Mapping[str, Any]:
    """A part of the result; {} where the stage was not run."""
    return result.get(key) or {}


def fixed(value: float | None, digits: int, *, sign: bool = False) -> str:
    """A number with that many decimals, `not run` where there is none.

    >>> fixed(1.06, 4), fixed(-0.5, 1, sign=True), fixed(None, 4)
    ('1.0600', '-0.5', 'not run')
    """
    if value is None:
        return NOT_RUN
    return f"{float(value):{'+' if sign else ''},.{digits}f}"


def count(value: float | None) -> str:
    """A whole number with its thousands apart.

    >>> count(1048576), count(None)
    ('1,048,576', 'not run')
    """
    return NOT_RUN if value is None else f"{int(value):,}"


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
