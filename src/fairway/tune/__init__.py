"""Settings of test-time training, searched on training documents by one process or by many."""

from typing import TYPE_CHECKING, Any

from fairway.tune.config import TuneConfig

if TYPE_CHECKING:
    from fairway.tune.search import TuneResult, changes, held_out, tune

__all__ = ["TuneConfig", "TuneResult", "changes", "held_out", "tune"]


def __getattr__(name: str) -> Any:  # settings alone cost no PyTorch
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from fairway.tune import search

    return getattr(search, name)
