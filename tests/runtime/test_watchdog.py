import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import torch

from fairway.runtime.meter import Meter, Reading, Spell, straggler
from fairway.runtime.watchdog import Beat, Peer, Watchdog, process

HERE = Path(__file__).resolve()
CPU = torch.device("cpu")


class Shelf:
    """A store of which each test can see what lies in it."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self.broken = False

    def clone(self) -> "Shelf":
        return self

    def set_timeout(self, timeout: timedelta, /) -> None: ...

    def set(self, key: str, value: str, /) -> None:
        if self.broken:
            raise RuntimeError("connection lost")
        self.values[key] = value.encode()

    def check(self, keys: list[str], /) -> bool:
        return all(key in self.values for key in keys)

    def multi_get(self, keys: list[str], /) -> list[bytes]:
        return [self.values[key] for key in keys]


@pytest.fixture
def watchdog() -> Watchdog:
    """Rank 0 of two, none of whose threads runs: tests call what they would."""
    found = Watchdog()
    found.peers, found.peer_seconds, found._store = [Peer(1)], 20.0, Shelf()
    return found


def hear(watchdog: Watchdog, **changes: object) -> Peer:
    """A beat of rank 1."""
    peer = watchdog.peers[0]
    peer.beat = replace(peer.beat, number=peer.beat.number + 1, host="node7", pid=1234, **changes)  # type: ignore[arg-type]
    watchdog._pass(0.5)
    return peer


def pass_seconds(watchdog: Watchdog, seconds: float) -> None:
    for _ in range(int(2 * seconds)):
        watchdog._rounds += 1
        watchdog._pass(0.5)


def test_a_silent_rank_on_another_machine_is_lost_after_its_seconds(watchdog: Watchdog) -> None:
    hear(watchdog)
    pass_seconds(watchdog, 19)
    assert not watchdog._verdict()
    hear(watchdog)
    pass_seconds(watchdog, 19)
    assert not watchdog._verdict()
    pass_seconds(watchdog, 2)
    assert watchdog._verdict().startswith("rank 1 (node7, process 1234) has been silent for 21 s")
    watchdog.peers[0].beat = replace(watchdog.peers[0].beat, leaving=True)
    assert not watchdog._verdict()  # it parted in order


def test_a_process_of_this_machine_is_looked_up(watchdog: Watchdog) -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    here = replace(Beat.of_this_process(), pid=child.pid, born=process(child.pid)[1])
    peer = watchdog.peers[0]
    peer.beat = replace(here, number=1)
    pass_seconds(watchdog, 60)
    assert peer.state() == "running"
    assert not watchdog._verdict()  # busy: something holds its interpreter
    child.send_signal(19)
    wait_until(lambda: peer.state() == "stopped")
    assert "was stopped from outside (SIGSTOP)" in watchdog._verdict()
    assert child.wait(5) == -9  # so that nobody waits for it
    assert peer.state() == "gone"
    assert "has died without a word" in watchdog._verdict()
    peer.beat = replace(peer.beat, pid=os.getpid())  # another process, with the same number
    assert peer.state() == "gone"


def test_a_rank_that_fails_is_quoted(watchdog: Watchdog) -> None:
    peer = hear(watchdog, failed="Traceback\n  in a_bug\nZeroDivisionError: division by zero")
    assert not watchdog._verdict()  # this rank may be failing in the same way, and say so itself
    pass_seconds(watchdog, 4)
    assert not watchdog._verdict()  # it may be at work on what it has to keep
    with watchdog.meter.collective(CPU):
        assert watchdog._verdict() == f"{peer} failed: {peer.beat.failed}"
        watchdog.rank = 2
        assert watchdog._verdict() == f"{peer} failed: ZeroDivisionError: division by zero"
    pass_seconds(watchdog, 20)
    assert watchdog._verdict()  # waiting for a GPU, which waits for it


def test_a_rank_that_was_asked_to_stop_leaves_the_others_their_time(watchdog: Watchdog) -> None:
    hear(watchdog, failed="stopped by SIGTERM", stopped=True, leaving=True)
    pass_seconds(watchdog, 100)
    assert not watchdog._verdict()  # the first one still writes the checkpoint
    with watchdog.meter.collective(CPU):
        assert watchdog._verdict().endswith(" ended: stopped by SIGTERM")


def test_a_store_that_does_not_answer_ends_the_run(watchdog: Watchdog) -> None:
    for _ in range(39):
        watchdog._pass(0.5)
    assert not watchdog._verdict()
    pass_seconds(watchdog, 1)
    for _ in range(41):
        watchdog._pass(0.5)
    assert "has not answered for 20 s" in watchdog._verdict()


def test_whoever_keeps_the_others_waiting_is_stuck_in_lockstep_only(watchdog: Watchdog) -> None:
    seconds = [0.0]
    watchdog.meter = meter = Meter(now=lambda: seconds[0])

    def collectives(count: int, last_one_waits: float) -> None:
        for number in range(count):
            seconds[0] += 1.0
            with meter.collective(CPU):
                if number == count - 1:
                    seconds[0] += last_one_waits
                    hear(watchdog, meter=Reading(entered=meter.entered - 1))
                    pass_seconds(watchdog, 4)
                    verdicts.append(watchdog._verdict())

    verdicts: list[str] = []
    collectives(3, 500.0)  # the first process packs
    with meter.lockstep():
        collectives(3, 19.0)
        collectives(3, 21.0)
    assert verdicts[:2] == ["", ""]
    assert "is stuck: the others have waited for it for 21 s" in verdicts[2]


def test_a_stuck_rank_says_where_it_is(watchdog: Watchdog) -> None:
    overdue = Reading(entered=5, waiting=30.0, patience=1.0)
    hear(watchdog, meter=overdue)
    watchdog.meter.entered = 4
    watchdog._exchange_now = lambda seconds: None  # type: ignore[method-assign]
    verdict = watchdog._verdict()
    assert "keeps rank 1 (node7, process 1234) waiting" in verdict
    assert "test_a_stuck_rank_says_where_it_is" in verdict
    assert "test_a_stuck_rank_says_where_it_is" in watchdog._me.failed


def test_beats_arrive_as_they_were_sent() -> None:
    shelf, both = Shelf(), [Watchdog(), Watchdog()]
    for rank, one in enumerate(both):
        one.start(shelf, rank, 2, peer_seconds=5.0)
    wait_until(lambda: all(one.peers[0].beat.number for one in both))
    assert both[0].peers[0].beat.pid == os.getpid()
    assert both[0].peers[0].state() == "running"
    both[1].tell(ValueError("no bytes left"))
    wait_until(lambda: both[0].peers[0].beat.failed == "no bytes left")
    assert "rank 1" in both[0].who_is_lost()
    for one in both:
        one.stop()


def test_waiting_is_told_from_working() -> None:
    seconds = [0.0]
    meter = Meter(now=lambda: seconds[0])
    with meter.lockstep():
        for _ in range(10):
            seconds[0] += 3.0
            with meter.collective(CPU):
                seconds[0] += 1.0
    found = meter.read()
    assert (found.entered, found.total, found.waited) == (10, 40.0, 10.0)
    assert found.waiting is None


def test_a_straggler_is_worth_a_word_only_where_it_costs_something() -> None:
    even = [Spell(60, 10), Spell(60, 12)]
    assert straggler(even) is None
    assert straggler([Spell(0.5, 0.4), Spell(0.5, 0.0)]) is None
    found = straggler([*even, Spell(60, 40)])
    assert found is None  # one that is fast holds nobody up
    found = straggler([Spell(60, 40), Spell(60, 40), Spell(60, 2)])
    assert found is not None
    assert (found.rank, round(found.ratio, 1)) == (2, 2.9)


def start(part: str, folder: Path, world_size: int = 2) -> list[str]:
    """What each process of ranks_at_work.py said on standard error until all had ended."""
    command = [sys.executable, str(HERE.with_name("ranks_at_work.py")), part]
    processes = [
        subprocess.Popen(
            [*command, str(rank), str(world_size), str(folder)], stderr=subprocess.PIPE, text=True
        )
        for rank in range(world_size)
    ]
    return [process.communicate(timeout=60)[1] for process in processes]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("part", "words"),
    [
        ("kill", "has died without a word"),
        ("stop", "was stopped from outside (SIGSTOP)"),
        ("hang", "in hang\n    time.sleep(0.01)"),
        ("die", "ZeroDivisionError: division by zero"),
    ],
)
def test_a_lost_rank_ends_the_others_with_its_name(part: str, words: str, tmp_path: Path) -> None:
    began = time.monotonic()
    errors = start(part, tmp_path)
    assert time.monotonic() - began < 20
    assert words in errors[0]
    assert "rank 1 (" in errors[0]


@pytest.mark.slow
def test_one_that_works_while_the_others_wait_is_left_alone(tmp_path: Path) -> None:
    assert start("pack", tmp_path) == ["", ""]


@pytest.mark.slow
def test_a_slow_rank_is_named_with_its_share(tmp_path: Path) -> None:
    errors = start("slow", tmp_path)
    assert "rank 1 (" in errors[0]
    assert "times as long as the median: " in errors[0]
    assert "of each step is spent waiting for it" in errors[0]


def wait_until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)
