"""Being asked to stop: Ctrl-C, and what Slurm, Kubernetes, torchrun and spot machines send.

Where the work looks at `Stop.asked` between its steps, the first signal waits for the step to end,
so that nothing is lost; anywhere else it ends the work at once, as `Stopped`.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


class Stopped(Exception):
    """The run was asked to stop; what it had was kept. `signal` is what asked, by number."""

    def __init__(self, message: str, signal_number: int = signal.SIGINT) -> None:
        super().__init__(message)
        self.signal = signal_number


class Stop:
    """What the signals said. One per run; `listening` makes it hear them."""

    def __init__(self) -> None:
        self.signal: int | None = None  # the first that came
        self._looked_at = 0  # how many loops poll at present

    def __bool__(self) -> bool:
        return self.asked

    @property
    def asked(self) -> bool:
        return self.signal is not None

    @contextmanager
    def looked_at(self) -> Iterator["Stop"]:
        """While inside, whoever works looks at `asked` itself."""
        self._looked_at += 1
        try:
            yield self
        finally:
            self._looked_at -= 1

    def stopped(self, message: str) -> Stopped:
        return Stopped(message, self.signal or signal.SIGINT)

    def hear(self, number: int, frame: FrameType | None = None) -> None:
        """The handler: a second signal is obeyed at once, wherever the work stands."""
        again = self.asked
        self.signal = self.signal or number
        if again or not self._looked_at:
            name = signal.Signals(number).name
            raise Stopped(f"stopped by {name}; what was finished before is kept", number)


@contextmanager
def listening() -> Iterator[Stop]:
    """Hear the signals until the end of the block; in the main thread only, as Python has it."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, stop.hear) for number in SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
