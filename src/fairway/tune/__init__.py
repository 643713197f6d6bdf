"""Settings of test-time training, searched on training documents by one process or by many."""

from fairway.tune.search import TuneConfig, TuneResult, changes, held_out, tune

__all__ = ["TuneConfig", "TuneResult", "changes", "held_out", "tune"]
