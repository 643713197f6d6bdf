"""Probes for any scorer: five questions that a legal score answers well.

A scorer is a function tokens (n,) int64 -> nats (n - 1,), or (nats, bytes). Start at
`run.run_audit`; the rules and what probes them are listed in docs/rules.md. A probe is a function
`Case -> ProbeResult`; `PROBES` is the table of those we ship.
"""

from fairway.audit.byte_audit import audit_bytes
from fairway.audit.case import Case, Limits, Probe
from fairway.audit.findings import KINDS, AuditReport, Finding, ProbeResult
from fairway.audit.run import PROBES, run_audit
from fairway.audit.token_pieces import Vocabulary
from fairway.audit.vocabulary import open_vocabulary
from fairway.runtime.callable_module import make_callable

__all__ = [
    "KINDS",
    "PROBES",
    "AuditReport",
    "Case",
    "Finding",
    "Limits",
    "Probe",
    "ProbeResult",
    "Vocabulary",
    "audit_bytes",
    "open_vocabulary",
    "run_audit",
]

make_callable(__name__, run_audit)  # so that `fairway.audit(scorer, ...)` is what people expect
