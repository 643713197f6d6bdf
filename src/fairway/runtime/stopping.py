"""Being asked to stop: Ctrl-C, and what Slurm, Kubernetes, torchrun and spot machines send.

Where the work looks at `Stop.asked` between its steps, the first signal waits for the step to end,
so that nothing is lost; anywhere else it ends the work at once, as `Stopped`.
"""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# torchrun passes on to its workers what the terminal has already sent them.
PATIENCE_SECONDS = 1.0  # within which a second signal is the first one again
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


class Stopped(KeyboardInterrupt):
    """The run was asked to stop; what it had was kept. `signal` is what asked, by number.

    No `Exception`, like its parent: whoever catches all that can go wrong must not catch this.
    """

    def __init__(self, message: str, signal_number: int = signal.SIGINT) -> None:
        super().__init__(message)
        self.signal = signal_number


class Stop:
    """What the signals said. One per run; `listening` makes it hear them."""

    def __init__(self, patience_seconds: float = PATIENCE_SECONDS) -> None:
        self.patience_seconds = patience_seconds
        self.signal: int | None = None  # the first that came
        self._came_at = 0.0
        self._looked_at = 0  # how many loops poll at present

    def __bool__(self) -> bool:
        return self.asked

    @property
    def asked(self) -> bool:
        return self.signal is not None

    @contextmanager
    def looked_at(self) -> Iterator["Stop"]:
        """While inside, whoever works looks at `asked` itself.

        What is asked after the last look is obeyed at the end: raises Stopped.
        """
        self._looked_at += 1
        try:
            yield self
        finally:
            self._looked_at -= 1
        if self.asked and not self._looked_at:
            raise self.stopped(f"stopped by {self.name}; what was finished is kept")

    @property
    def name(self) -> str:
        """Of the signal, as people know it; that of Ctrl-C where another rank heard it."""
        return signal.Signals(self.signal or signal.SIGINT).name

    def stopped(self, message: str) -> Stopped:
        return Stopped(message, self.signal or signal.SIGINT)

    def hear(self, number: int, frame: FrameType | None = None) -> None:
        """The handler: a second signal is obeyed at once, wherever the work stands."""
        now, again = time.monotonic(), self.asked
        if again and now - self._came_at < self.patience_seconds:
            return
        if not again:
            self.signal, self._came_at = number, now
        if again or not self._looked_at:
            name = signal.Signals(number).name
            raise Stopped(f"stopped by {name}; what was finished is kept", number)


@contextmanager
def listening(patience_seconds: float = PATIENCE_SECONDS) -> Iterator[Stop]:
    """Hear the signals until the end of the block; in the main thread only, as Python has it."""
    stop = Stop(patience_seconds)
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, stop.hear) for number in SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
