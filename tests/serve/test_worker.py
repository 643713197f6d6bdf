"""Requests take turns; too many, too long and too late are told so, and who leaves makes room."""

import asyncio
import threading
import time
from collections.abc import Iterator

import pytest

from fairway.serve.errors import ApiError
from fairway.serve.worker import Worker


def run(work, **settings) -> list:
    """The outcome of `work(worker)`, a worker at work meanwhile."""
    worker = Worker(**({"active": 2, "waiting": 1, "seconds": 20.0} | settings))
    worker.start()
    try:
        return asyncio.run(work(worker))
    finally:
        worker.stop()


async def collected(worker: Worker, steps: Iterator) -> list:
    async with worker.answers(steps) as items:
        return [item async for item in items]


def test_two_requests_take_turns_and_a_third_waits() -> None:
    order: list[str] = []
    begun = threading.Event()

    def steps(name: str) -> Iterator[str]:
        for _ in range(4):
            begun.wait(10)
            order.append(name)
            yield name

    async def work(worker: Worker) -> list:
        tasks = [asyncio.create_task(collected(worker, steps(name))) for name in "abc"]
        await asyncio.sleep(0.1)
        begun.set()
        return await asyncio.gather(*tasks)

    assert run(work) == [["a"] * 4, ["b"] * 4, ["c"] * 4]
    assert order.index("c") > max(i for i, name in enumerate(order) if name == "a") - 2
    both = order[1 : order.index("c")]
    assert abs(both.count("a") - both.count("b")) <= 2


def test_the_fourth_is_sent_away_until_one_leaves() -> None:
    closed = threading.Event()

    def endless() -> Iterator[int]:
        try:
            while True:
                time.sleep(0.005)
                yield 1
        finally:
            closed.set()

    async def work(worker: Worker) -> list:
        tasks = [asyncio.create_task(collected(worker, endless())) for _ in range(3)]
        await asyncio.sleep(0.1)
        with pytest.raises(ApiError) as raised:
            await collected(worker, iter([1]))
        assert (raised.value.status, worker.load) == (429, {"active": 2, "waiting": 1})
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert closed.wait(5)
        await asyncio.sleep(0.1)
        return await collected(worker, iter([1, 2]))

    assert run(work) == [1, 2]


def test_what_takes_too_long_ends_waiting_or_not() -> None:
    def slow() -> Iterator[int]:
        while True:
            time.sleep(0.01)
            yield 1

    async def work(worker: Worker) -> list:
        found = await asyncio.gather(
            *(collected(worker, slow()) for _ in range(3)), return_exceptions=True
        )
        return [(type(each), getattr(each, "status", 0)) for each in found]

    assert run(work, seconds=0.3) == [(ApiError, 503)] * 3


def test_an_error_reaches_who_asked_and_nobody_else() -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise ZeroDivisionError

    async def work(worker: Worker) -> list:
        both = (collected(worker, broken()), collected(worker, iter("ab")))
        return list(await asyncio.gather(*both, return_exceptions=True))

    failed, fine = run(work)
    assert isinstance(failed, ZeroDivisionError)
    assert fine == ["a", "b"]


def test_stopping_tells_those_who_still_wait() -> None:
    def endless() -> Iterator[int]:
        while True:
            time.sleep(0.005)
            yield 1

    async def work(worker: Worker) -> list:
        task = asyncio.create_task(collected(worker, endless()))
        await asyncio.sleep(0.05)
        await asyncio.to_thread(worker.stop)
        with pytest.raises(ApiError) as raised:
            await task
        worker.stop = lambda: None  # type: ignore[method-assign]
        return [raised.value.status]

    assert run(work) == [503]
