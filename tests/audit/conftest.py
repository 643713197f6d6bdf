"""A clock that the audit reads and a test sets, so that no test waits and none fails under load."""

import sys

import pytest

from fairway.audit import run_audit
from fairway.audit.artifact import audit_artifact
from fairway.audit.scorer import Session

from .clock import Clock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The time of day for everything that plans an audit and keeps it within its seconds."""
    clock = Clock()
    for reader in (run_audit, audit_artifact, Session):
        monkeypatch.setattr(sys.modules[reader.__module__], "time", clock)
    return clock
