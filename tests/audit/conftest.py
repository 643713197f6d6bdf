"""A clock that the audit reads and a test sets, so that no test waits and none fails under load."""

import pytest

from .clock import Clock


@pytest.fixture
def clock() -> Clock:
    """Pass `clock.read` as `now` to what is audited."""
    return Clock()
