"""One thread that has the model to itself, and answers several requests side by side in turns.

A request is an iterator; each turn takes one item of it, a token or a window, so that nobody waits
for another's whole answer, and who has left is noticed after one turn.
"""

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from fairway.serve.errors import ApiError

END = object()


class Job:
    """A request on its way: what it yields, and for whom."""

    def __init__(self, steps: Iterator[Any]) -> None:
        self.steps, self.loop = steps, asyncio.get_running_loop()
        self.answers: asyncio.Queue[Any] = asyncio.Queue()
        self.left = False  # nobody waits for it any more

    def turn(self) -> bool:
        """Take one item, in the worker's thread; returns whether there may be more."""
        if self.left:
            self._close()
            return False
        try:
            item = next(self.steps, END)
        except Exception as error:
            item = error
        self.deliver(item)
        return item is not END and not isinstance(item, Exception)

    def deliver(self, item: Any) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody is there to read it
            self.loop.call_soon_threadsafe(self.answers.put_nowait, item)

    def _close(self) -> None:
        close = getattr(self.steps, "close", None)
        if close is not None:
            close()


class Worker:
    """Takes turns on up to `active` jobs; up to `waiting` more wait, in order.

    seconds  that a job may take, waiting included
    """

    def __init__(self, *, active: int, waiting: int, seconds: float) -> None:
        self.active, self.waiting, self.seconds = active, waiting, seconds
        self._jobs: deque[Job] = deque()  # the first `active` take turns
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._work, name="model", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End after the turn that is going on."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join()

    @property
    def load(self) -> dict[str, int]:
        number = len(self._jobs)
        return {"active": min(number, self.active), "waiting": max(0, number - self.active)}

    @asynccontextmanager
    async def answers(self, steps: Iterator[Any]) -> AsyncIterator[AsyncIterator[Any]]:
        """What `steps` yields, as it comes. Raises ApiError where there are too many to wait, and
        where it takes too long."""
        job = Job(steps)
        with self._changed:
            if len(self._jobs) >= self.active + self.waiting:
                raise ApiError(
                    429,
                    f"{len(self._jobs)} requests are on their way already; try again later",
                    code="too_many_requests",
                    headers={"Retry-After": "1"},
                )
            self._jobs.append(job)
            self._changed.notify()
        try:
            yield self._read(job)
        finally:
            job.left = True

    async def _read(self, job: Job) -> AsyncIterator[Any]:
        end = job.loop.time() + self.seconds
        while True:
            try:
                async with asyncio.timeout_at(end):
                    item = await job.answers.get()
            except TimeoutError:
                raise ApiError(
                    503,
                    f"not finished within {self.seconds:g} seconds, which is the limit here",
                    code="timeout",
                    headers={"Retry-After": "1"},
                ) from None
            if item is END:
                return
            if isinstance(item, Exception):
                raise item
            yield item

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopping or self._jobs)
                if self._stopping:
                    self._turn_away()
                    return
                running = list(self._jobs)[: self.active]
            for job in running:
                if not job.turn():
                    with self._changed:
                        self._jobs.remove(job)
            with self._changed:  # those who left while waiting make room
                for job in [job for job in self._jobs if job.left and job not in running]:
                    self._jobs.remove(job)

    def _turn_away(self) -> None:
        while self._jobs:
            job = self._jobs.popleft()
            job.deliver(ApiError(503, "the server is going down", code="shutting_down"))
