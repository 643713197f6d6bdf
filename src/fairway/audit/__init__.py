"""Black-box probes for any scorer: five questions that a legal score answers well.

A scorer is a function tokens (n,) int64 -> nats (n - 1,), or (nats, bytes). Start at
`plan.run_audit`; the rules and what probes them are listed in docs/rules.md.
"""

from fairway.audit.findings import KINDS, AuditReport, Finding, ProbeResult
from fairway.audit.run import PROBES, Limits, run_audit

__all__ = [
    "HELP",
    "KINDS",
    "PROBES",
    "AuditReport",
    "Finding",
    "Limits",
    "ProbeResult",
    "run_audit",
]

HELP = {
    "command": "ask a scorer five questions that a legal score answers well; exit 0 legal, "
    "1 illegal, 2 could not run",
    "scorer": "FILE.py:FUNCTION, taking token ids (n,) and returning nats (n-1,) or (nats, bytes)",
    "vocab_size": "number of token ids; all of them are priced at some positions",
    "tokens": "a .npy file with the stream to price; without it, a pseudo-text with repeated "
    "phrases",
    "num_bytes": "bytes of the original text that tokens 1.. stand for; checks the denominator",
    "text": "the original text itself, in place of its number of bytes",
    "tokenizer": "SentencePiece .model file; checks the byte counts token by token",
    "seconds": "what the audit may take; what it did not get to is said",
    "seed": "of the pseudo-text and of the edits; the same seed repeats the same audit",
    "json": "print the report as one JSON object",
}
