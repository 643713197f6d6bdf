"""Stands in for `time.perf_counter` and `time.sleep`."""


class Clock:
    """Time passes while somebody sleeps, and by `step` seconds whenever somebody looks."""

    def __init__(self) -> None:
        self.now = 0.0
        self.step = 0.0

    def read(self) -> float:
        self.now += self.step
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
