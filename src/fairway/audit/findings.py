"""What an audit found, in words a person can check and in JSON a program can read.

The kinds are the entries of the catalogue in `docs/rules.md`. A probe names the symptom it saw; the
one table of which kinds show it is here. How the evidence was gathered is in the probes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from fairway.runtime.strict_json import json_array, json_object, json_text, json_texts

OVER = ("bytes", "time")
KINDS = {
    "C1": "the nats of a token depend on text that comes after it",
    "C2": "the nats are not those of one normalized distribution",
    "C4": "a token is not scored once, left to right",
    "A1": "adapt to the whole text, then score it",
    "A2": "fine-tuned on the scored text before quantization",
    "A3": "several passes, the last one reported",
    "A4": "two passes, the second one reported",
    "A5": "a temperature or scalar fitted to the tokens it scores",
    "A6": "SLOT: an offset fitted to the tokens it scores",
    "A7": "SLOT with a logit bias fitted to the tokens it scores",
    "A10": "update inside a chunk before all of the chunk is scored",
    "B1": "n-gram cache with the target inside its hash",
    "B2": "mixing weight decided by the realized token",
    "B3": "hindsight gate: the better of several scores",
    "B4": "improper projection of bytes onto tokens",
    "B5": "tilt without its exact normalizer",
    "C-a": "an expert gated by flags of the token it scores",
    "C-d": "lengths of later documents decide the order or the schedule",
    "C-e": "state that depends on timing or on earlier calls",
    "C-f": "no order of scoring: documents were each scored with the other's text",
    "D2": "the scored text is stored inside the scorer",
    "E1": "byte-fallback tokens counted as more than one byte",
    "E2": "leading spaces counted twice",
    "E3": "no piece for a lone space, which is counted as three bytes",
    "E4": "bytes of a transformed text counted without its side file",
    "E5": "pieces counted by their printed name",
    "E6": "part of the text is not scored",
    "E7": "the tail of the text is dropped",
    "E8": "tokens are scored more than once",
    "E9": "the bytes are those of another text",
}

# Symptom -> the kinds that show it, the likeliest first. From outside several kinds look alike.
LOOKS_LIKE: dict[str, tuple[str, ...]] = {
    # causality
    "where later documents begin decides earlier nats": ("C-d",),
    "no order of scoring exists": ("C-f", "A4"),
    "the nats read a token that comes shortly after theirs": ("C-a", "C1"),
    "the nats read the end of the text": ("C1",),
    "something was fitted to the text before it was scored": ("A5", "A1", "B3"),
    "the scorer learned from text it had not scored": ("A1", "A2", "A3", "A4", "A5"),
    "a block was fitted to its own later text before it was scored": ("A10", "A6", "A7"),
    "the nats of a block were fitted to the tokens of that block": ("A6", "A7", "A10"),
    "the nats know text that comes after their token": ("C1", "A1"),
    "another number of nats for a stream as long": ("C4",),
    "the text is stored": ("D2",),
    # normalization
    "one token is raised and the others are not lowered as much": ("B5", "B3", "C-a"),
    "every token is scored as if it were the expected one": ("B1", "B4", "A7"),
    "the normalizer is off by the same factor everywhere": ("B5",),
    "the normalizer is not that of the distribution": ("B5", "C-a", "B2"),
    "how a token is scored is decided after seeing it": ("B3", "C-a", "B2", "B4", "B5"),
    "a distribution scores every token before it knows which one came": ("C2",),
    "a distribution does not sum to one": ("C2",),
    "the score is not that of the distribution": ("C2", "A7"),
    # coverage
    "part of the text has no nats": ("E6", "E7"),
    "the end of the text has no nats": ("E7", "E6"),
    "too many nats": ("E8",),
    "a probability above one": ("C2",),
    "nats that are no numbers": (),
    "nothing is scored there": ("E6", "B1"),
    "a token is never scored": ("E6",),
    # determinism
    "it remembers what it read": ("A4", "A3", "C-e"),
    "the result depends on more than the tokens": ("C-e",),
    # bytes: wrong rules that scorers were caught counting by, then what only a total shows
    "the space in front of a word is counted twice, in the table and again behind it": ("E2",),
    "the first word of a document is given a space that is not there": ("E2",),
    "the space is counted twice, and once more in front of a document's first word": ("E2",),
    "each space is counted as the three bytes of the mark that stands for it": ("E3", "E2"),
    "byte-fallback tokens are counted as three bytes each": ("E1",),
    "byte-fallback tokens are counted by their printed name, six characters": ("E5",),
    "pieces without text (control, unknown, unused) are counted by their name": ("E5",),
    "every piece is counted by its printed name": ("E5", "E2"),
    "counted in a usual, wrong way": ("E5", "E1", "E2"),
    "some tokens are miscounted": ("E5", "E1"),
    "a lone space is spelled as three bytes": ("E3",),
    "operators of a text transform are counted": ("E4",),
    "the total is another one": ("E9",),
    "fewer bytes than the text has": ("E6", "E7", "E9"),
    "more than 12 % too many bytes": ("E2", "E4", "E1", "E5", "E9"),
    "6 to 12 % too many bytes": ("E4", "E2", "E1", "E5", "E9"),
    "2 to 6 % too many bytes": ("E1", "E2", "E4", "E5", "E9"),
    "a few bytes too many": ("E5", "E2", "E4", "E1", "E9"),
    # from the inside
    "learned before it was scored": ("A10", "C1"),
    "scoring leaves a trace": ("A6", "C-e"),
    "the model in the file learned": ("A4",),
    "training documents are validation documents": ("A2", "D2"),
    "the record is of something else": ("E9",),
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

    @classmethod
    def of(cls, symptom: str, said: str, check: str = "") -> "Finding":
        """A finding of whatever kinds look like that."""
        return cls(said, LOOKS_LIKE[symptom], check)

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
    def from_json(cls, data: Mapping[str, object]) -> "Finding":
        kinds = json_texts(data.get("alternatives", ()), "alternatives")
        if data.get("kind"):
            kinds = (json_text(data["kind"], "kind"), *kinds)
        check = json_text(data.get("check", ""), "check")
        return cls(json_text(data["said"], "said"), kinds, check)


@dataclass(frozen=True)
class ProbeResult:
    """One probe's verdict.

    summary      what was done, and the number that came out
    not_covered  what there was no time or no means for
    details      numbers for the JSON report, plain Python values only
    """

    name: str
    ok: bool
    summary: str
    findings: tuple[Finding, ...] = ()
    not_covered: tuple[str, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def broken(self) -> str:
        """Why it found nothing: an error of its own. That accuses nobody, and clears nobody."""
        given = self.details.get("broken", "")
        return given if isinstance(given, str) else ""

    @property
    def over(self) -> tuple[str, ...]:
        """Of "bytes" and "time" the budgets that were missed, where nothing else is wrong."""
        given = self.details.get("over", ())
        return tuple(w for w in OVER if w in given) if isinstance(given, list | tuple) else ()

    def to_json(self) -> dict[str, Any]:
        return {
            "ok": self.ok,
            "summary": self.summary,
            "findings": [finding.to_json() for finding in self.findings],
            "not_covered": list(self.not_covered),
            **self.details,
        }

    @classmethod
    def from_json(cls, name: str, data: Mapping[str, object]) -> "ProbeResult":
        known = ("ok", "summary", "findings", "not_covered")
        findings = json_array(data.get("findings", ()), "findings")
        return cls(
            name,
            bool(data["ok"]),
            json_text(data.get("summary", ""), "summary"),
            tuple(Finding.from_json(json_object(f, "a finding")) for f in findings),
            json_texts(data.get("not_covered", ()), "not_covered"),
            {key: value for key, value in data.items() if key not in known},
        )


def found(
    name: str,
    summary: str,
    findings: Sequence[Finding] = (),
    not_covered: Sequence[str] = (),
    **details: object,
) -> ProbeResult:
    """The result of a probe that passes if it found nothing."""
    return ProbeResult(name, not findings, summary, tuple(findings), tuple(not_covered), details)


@dataclass(frozen=True)
class AuditReport:
    """The audit of one scorer.

    notes    true of the scorer and not against the rules: it depends on the length of the stream,
             it prints, its nats are rounded
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
        """`legal` or `illegal`; `unknown` where the scorer, or a probe, could not be run.

        What is legal in all but its clock or its size is `over time`, `over bytes` or `over bytes
        and time`: such a run learned from nothing that it should not, it took too much.
        """
        if self.problem:
            return "unknown"
        failed = [probe for probe in self.probes.values() if not (probe.ok or probe.broken)]
        if not failed and self.broken:
            return "unknown"
        if not all(probe.over for probe in failed):
            return "illegal"
        over = sorted({word for probe in failed for word in probe.over})
        return f"over {' and '.join(over)}" if over else "legal"

    @property
    def order(self) -> Mapping[str, Any]:
        """The order of scoring that `causality` found: its name, None where there is none, how
        many documents, and the bits that telling order and lengths costs; {} where nothing asked.
        """
        causality = self.probes.get("causality")
        found = causality.details.get("order", {}) if causality else {}
        return found if isinstance(found, Mapping) else {}

    @property
    def broken(self) -> str:
        """Which probes could not be asked, and why; "" where all could."""
        told = (f"probe {p.name!r}: {p.broken}" for p in self.probes.values() if p.broken)
        return "; ".join(told)

    @property
    def exit_status(self) -> int:
        """0 legal, 1 illegal or over time or bytes, 2 could not run."""
        return {"legal": 0, "unknown": 2}.get(self.verdict, 1)

    def to_json(self) -> dict[str, Any]:
        report: dict[str, object] = {
            "verdict": self.verdict,
            "probes": {name: probe.to_json() for name, probe in self.probes.items()},
            "notes": list(self.notes),
            "scorer": self.scorer,
            "command": self.command,
            "calls": self.calls,
            "seconds": round(self.seconds, 3),
        }
        report |= {"order": dict(self.order)} if self.order else {}
        problem = self.problem or self.broken
        return report | ({"problem": problem} if problem else {})

    @classmethod
    def from_json(cls, data: Mapping[str, object]) -> "AuditReport":
        """Inverse of `to_json`; ValueError where the data is no audit report."""
        try:
            probes = {
                name: ProbeResult.from_json(name, json_object(probe, name))
                for name, probe in json_object(data["probes"], "probes").items()
            }
        except KeyError as error:
            raise ValueError(f"this is no audit report ({error!r})") from error
        given = {f.name: data[f.name] for f in fields(cls) if f.name in data}
        if any(probe.broken for probe in probes.values()):
            given.pop("problem", None)  # it tells of them
        notes = json_texts(data.get("notes", ()), "notes")
        return cls(**{"scorer": "", **given, "probes": probes, "notes": notes})

    def text(self) -> str:
        """The report as plain text, 100 columns where the sentences allow it."""
        if self.problem:
            return f"{self.scorer}: could not be audited: {self.problem}"
        lines = [f"{self.scorer}: {self.verdict.upper()}"]
        for probe in self.probes.values():
            said = "none" if probe.broken else "ok  " if probe.ok else "FAIL"
            lines.append(f"  {said}  {probe.name}: {probe.summary}")
            for finding in probe.findings:
                lines.append(f"        - {finding.said}")
                if finding.kinds:
                    lines.append(f"          likely {finding.kind_text}")
                heads = ["check: ", *["       "] * finding.check.count("\n")]
                checks = zip(heads, finding.check.splitlines(), strict=False)
                lines += [f"          {head}{line}" for head, line in checks]
        lines += self._order_text()
        gaps = [f"{p.name}: {gap}" for p in self.probes.values() for gap in p.not_covered]
        for title, items in (("not covered", gaps), ("notes", self.notes)):
            if items:
                lines += [f"  {title}:", *(f"        - {item}" for item in items)]
        lines.append(f"  {self.calls:,} calls in {self.seconds:.1f} s")
        if self.command:
            lines.append(f"  again: {self.command}")
        return "\n".join(lines)

    def _order_text(self) -> list[str]:
        """One line about an order of scoring that has to be told, or that there is none."""
        order = self.order
        if "cycle" in order:
            return [f"  order of scoring: none; documents {order['cycle']} read each other"]
        told = order.get("permutation_bits", 0), order.get("length_bits", 0)
        if not order.get("name") or not any(told):
            return []
        rate = order.get("bits_per_byte")
        share = "" if rate is None else f" ({rate:.3g} bits per byte)"
        return [
            f"  order of scoring: {order['name']}; telling it costs {told[0]:,.1f} bits, the "
            f"lengths of {order['documents']:,} documents {told[1]:,.1f}{share}, beside the nats"
        ]
