"""Processes that work for this one: fresh ones, which end when it does, and leave signals to it."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import wait

from fairway.runtime.stopping import SIGNALS


def num_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def worker_pool(workers: int, begin: Callable[[], object]) -> Iterator[ProcessPoolExecutor]:
    """Fresh processes, not forked ones: a lock that a thread of ours holds would never open.

    begin  is called in each of them first

    A worker that dies raises BrokenProcessPool in whoever waits for it. After an error nobody waits
    for what is still being done.
    """
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(
        workers,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=partial(_begin, begin),
    )
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        pool.submit(int)  # starts them all; a signal in the midst would leave half a process
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    try:
        yield pool
    except BaseException:
        for worker in set(multiprocessing.active_children()) - others:
            worker.terminate()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _begin(begin: Callable[[], object]) -> None:
    """In a worker: stopping is the first process's affair, and with it this one ends."""
    for number in set(SIGNALS) - {signal.SIGTERM}:  # by which the pool ends what is left of it
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # they came blocked
    threading.Thread(target=_end_with_parent, daemon=True).start()
    begin()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
