"""What an audit found, in words a person can check and in JSON a program can read.

The kinds are the entries of the catalogue in `docs/rules.md`. From outside, several of them look
alike; a finding names the likeliest first and the others as alternatives. How the evidence was
gathered is in the probes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

KINDS = {
    "C1": "a price depends on text that comes after it",
    "C2": "the prices are not those of one normalized distribution",
    "C4": "a token is not priced once, left to right",
    "A1": "adapt to the whole text, then score it",
    "A2": "fine-tuned on the scored text before quantization",
    "A3": "several passes, the last one reported",
    "A4": "two passes, the second one reported",
    "A5": "a temperature or scalar fitted to the tokens it prices",
    "A6": "SLOT: an offset fitted to the tokens it prices",
    "A7": "SLOT with a logit bias fitted to the tokens it prices",
    "A10": "update inside a chunk before all of the chunk is priced",
    "B1": "n-gram cache with the target inside its hash",
    "B2": "mixing weight decided by the realized token",
    "B3": "hindsight gate: the better of several prices",
    "B4": "improper projection of bytes onto tokens",
    "B5": "tilt without its exact normalizer",
    "C-a": "an expert gated by flags of the token it prices",
    "C-d": "lengths of later documents decide the order or the schedule",
    "C-e": "state that depends on timing or on earlier calls",
    "D2": "the scored text is stored inside the scorer",
    "E1": "byte-fallback tokens counted as more than one byte",
    "E2": "leading spaces counted twice",
    "E3": "no piece for a lone space, which is counted as three bytes",
    "E4": "bytes of a transformed text counted without its side file",
    "E5": "pieces counted by their printed name",
    "E6": "part of the text is not priced",
    "E7": "the tail of the text is dropped",
    "E8": "tokens are priced more than once",
    "E9": "the bytes are those of another text",
}


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    said          what was done and seen, in a sentence
    kinds         entries of the catalogue that look like this, the likeliest first
    check         Python lines that show it again, given `score` and `tokens`
    """

    said: str
    kinds: tuple[str, ...] = ()
    check: str = ""

    @property
    def kind_text(self) -> str:
        if not self.kinds:
            return ""
        first, *others = self.kinds
        alike = f" (from outside, {', '.join(others)} would look the same)" if others else ""
        return f"{first}: {KINDS[first]}{alike}"

    def to_json(self) -> dict[str, Any]:
        kind = self.kinds[0] if self.kinds else None
        return {
            "said": self.said,
            "kind": kind,
            "kind_name": KINDS[kind] if kind else None,
            "alternatives": list(self.kinds[1:]),
            "check": self.check,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Finding":
        first = (data["kind"],) if data.get("kind") else ()
        return cls(data["said"], (*first, *data.get("alternatives", ())), data.get("check", ""))


@dataclass(frozen=True)
class ProbeResult:
    """One probe's verdict.

    summary  what was done, and the number that came out
    details  numbers for the JSON report, plain Python values only
    """

    name: str
    ok: bool
    summary: str
    findings: tuple[Finding, ...] = ()
    not_covered: tuple[str, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {
            "ok": self.ok,
            "summary": self.summary,
            "findings": [finding.to_json() for finding in self.findings],
            "not_covered": list(self.not_covered),
            **self.details,
        }

    @classmethod
    def from_json(cls, name: str, data: Mapping[str, Any]) -> "ProbeResult":
        known = ("ok", "summary", "findings", "not_covered")
        return cls(
            name,
            bool(data["ok"]),
            data.get("summary", ""),
            tuple(Finding.from_json(finding) for finding in data.get("findings", ())),
            tuple(data.get("not_covered", ())),
            {key: value for key, value in data.items() if key not in known},
        )


@dataclass(frozen=True)
class AuditReport:
    """The audit of one scorer.

    notes    true of the scorer and not against the rules: it depends on the length of the stream,
             it prints, its prices are rounded
    problem  why the audit could not run at all; "" where it ran
    command  the command line that repeats this audit; "" for a function without an address
    """

    scorer: str
    probes: Mapping[str, ProbeResult]
    notes: tuple[str, ...] = ()
    problem: str = ""
    command: str = ""
    calls: int = 0
    seconds: float = 0.0

    @property
    def verdict(self) -> str:
        """`legal` or `illegal`; `unknown` where the scorer could not be run."""
        if self.problem:
            return "unknown"
        return "legal" if all(probe.ok for probe in self.probes.values()) else "illegal"

    @property
    def exit_status(self) -> int:
        """0 legal, 1 illegal, 2 could not run."""
        return {"legal": 0, "illegal": 1, "unknown": 2}[self.verdict]

    @property
    def findings(self) -> tuple[Finding, ...]:
        return tuple(f for probe in self.probes.values() for f in probe.findings)

    def to_json(self) -> dict[str, Any]:
        report: dict[str, Any] = {
            "verdict": self.verdict,
            "probes": {name: probe.to_json() for name, probe in self.probes.items()},
            "notes": list(self.notes),
            "scorer": self.scorer,
            "command": self.command,
            "calls": self.calls,
            "seconds": round(self.seconds, 3),
        }
        return report | ({"problem": self.problem} if self.problem else {})

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "AuditReport":
        """Inverse of `to_json`; ValueError where the data is no audit report."""
        try:
            probes = {name: ProbeResult.from_json(name, p) for name, p in data["probes"].items()}
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"this is no audit report ({error!r})") from error
        return cls(
            data.get("scorer", ""),
            probes,
            tuple(data.get("notes", ())),
            data.get("problem", ""),
            data.get("command", ""),
            data.get("calls", 0),
            data.get("seconds", 0.0),
        )

    def text(self) -> str:
        """The report as plain text, 100 columns where the sentences allow it."""
        if self.problem:
            return f"{self.scorer}: could not be audited: {self.problem}"
        lines = [f"{self.scorer}: {self.verdict.upper()}"]
        for probe in self.probes.values():
            lines.append(f"  {'ok  ' if probe.ok else 'FAIL'}  {probe.name}: {probe.summary}")
            for finding in probe.findings:
                lines.append(f"        - {finding.said}")
                if finding.kinds:
                    lines.append(f"          likely {finding.kind_text}")
                lines += [f"          {line}" for line in _check_lines(finding)]
        gaps = [(p.name, gap) for p in self.probes.values() for gap in p.not_covered]
        if gaps:
            lines.append("  not covered:")
            lines += [f"        - {name}: {gap}" for name, gap in gaps]
        if self.notes:
            lines.append("  notes:")
            lines += [f"        - {note}" for note in self.notes]
        lines.append(f"  {self.calls:,} calls in {self.seconds:.1f} s")
        if self.command:
            lines.append(f"  again: {self.command}")
        return "\n".join(lines)


def _check_lines(finding: Finding) -> list[str]:
    if not finding.check:
        return []
    first, *rest = finding.check.splitlines()
    return [f"check: {first}", *(f"       {line}" for line in rest)]
