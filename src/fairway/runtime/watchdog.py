"""The peers of this process, watched: who has died, stands still, or keeps the others waiting.

Every rank writes a beat into the process group's store once a second, over a connection and in a
thread of its own, and reads those of its peers; a second thread judges them. So a rank that waits
in a collective, on a CPU or a GPU, still learns that the one it waits for is gone, says so, and
ends, which lets torchrun start all of them again.

Being busy is no crime: a rank may pack for minutes while the others wait, since its thread goes on
beating; and one whose thread cannot run (a library that holds the interpreter) is looked up among
the processes where it is on this machine. Only in `Meter.lockstep`, where all do the same work, is
a rank that keeps the others waiting for too long counted as stuck.
"""

import contextlib
import json
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Protocol

from torch.distributed.elastic.multiprocessing.errors import get_error_handler

from fairway.runtime.meter import Meter, Reading, Spell, overdue, straggler
from fairway.runtime.patience import PEER_SECONDS

BEAT_SECONDS = 1.0
GRACE_SECONDS = 3.0  # in which a rank that fails may say so itself, or a peer end on its own
SURE_SECONDS = 3.5  # of silence that tell who is gone, once it is known that someone is
STRAGGLER_SECONDS = 60.0  # between two words about the slowest rank

Say = Callable[[str], None]


class Store(Protocol):
    """What a process group has to meet by; torch's own, of which its type stubs know little."""

    def clone(self) -> "Store": ...
    def set_timeout(self, timeout: timedelta, /) -> None: ...
    def set(self, key: str, value: str, /) -> None: ...
    def check(self, keys: list[str], /) -> bool: ...
    def multi_get(self, keys: list[str], /) -> list[bytes]: ...


@dataclass(frozen=True)
class Beat:
    """What a rank says of itself once a second.

    place    of two ranks with the same one, each sees the other's process
    born     when the process started, in the kernel's own count: a number is used again
    leaving  it ends in order, or because of another
    failed   its own error: a traceback, or one line where the user can mend it
    stopped  it was asked to end, as the others may have been, who still keep what they have
    """

    number: int = 0
    host: str = ""
    pid: int = 0
    place: str = ""
    born: str = ""
    leaving: bool = False
    failed: str = ""
    stopped: bool = False
    meter: Reading = field(default_factory=Reading)

    @classmethod
    def from_json(cls, text: bytes) -> "Beat":
        values = json.loads(text)
        return cls(**values | {"meter": Reading(**values["meter"])})

    @classmethod
    def of_this_process(cls) -> "Beat":
        pid = os.getpid()
        return cls(host=socket.gethostname(), pid=pid, place=_place(), born=process(pid)[1])


@dataclass
class Peer:
    """silent  our own waking seconds since it last said anything: no two clocks are compared, and
    a machine that slept accuses nobody"""

    rank: int
    beat: Beat = field(default_factory=Beat)
    silent: float = 0.0
    judged: int = 0  # the beat that `silent` counts from
    overdue: float = 0.0  # waking seconds for which it has been known to keep us waiting too long
    failing: float = 0.0  # ... and since it said that it failed

    def __str__(self) -> str:
        where = f" ({self.beat.host}, process {self.beat.pid})" if self.beat.pid else ""
        return f"rank {self.rank}{where}"

    def passed(self, seconds: float) -> None:
        """So much time went by for us."""
        new, self.judged = self.beat.number != self.judged, self.beat.number
        self.silent = 0.0 if new else self.silent + seconds
        self.failing = self.failing + seconds if self.beat.failed else 0.0

    def state(self) -> str:
        """gone, stopped or running, where its process can be seen from here; else unknown."""
        if not self.beat.place or self.beat.place != _place():
            return "unknown"
        state, born = process(self.beat.pid)
        if born != self.beat.born or state in "ZX":
            return "gone"
        return "stopped" if state in "Tt" else "running"


class Watchdog:
    """One per process group; idle until `start`. `meter` is this rank's own."""

    def __init__(self) -> None:
        self.meter = Meter()
        self.rank, self.peers = 0, list[Peer]()
        self.peer_seconds = PEER_SECONDS
        self.report_seconds = STRAGGLER_SECONDS
        self.say: Say = _on_stderr
        self._me = Beat()
        self._store: Store | None = None
        self._unanswered = 0.0  # waking seconds since the store did
        self._rounds = self._judged_rounds = 0
        self._wake, self._done, self._quiet = (threading.Event() for _ in range(3))
        self._reported: tuple[float, dict[int, Reading]] = (0.0, {})

    def start(
        self,
        store: Store,
        rank: int,
        world_size: int,
        *,
        peer_seconds: float = PEER_SECONDS,
        say: Say | None = None,
    ) -> None:
        """Begin to beat and to judge.

        store  of the process group, which every rank has joined; it is not used itself
        say    takes what the run's log should keep, on one rank only
        """
        self.rank, self.peer_seconds = rank, peer_seconds
        self.peers = [Peer(other) for other in range(world_size) if other != rank]
        self.say = say or self.say
        self._me = Beat.of_this_process()
        self._store = store = store.clone()
        store.set_timeout(timedelta(seconds=max(1.0, peer_seconds / 4)))
        self._write()
        for work in (self._talk, self._judge):
            threading.Thread(target=work, name=f"fairway{work.__name__}", daemon=True).start()

    def stop(self) -> None:
        """The peers part in order."""
        self._me = replace(self._me, leaving=True)
        self._quiet.set()
        self._done.set()
        self._wake.set()

    def tell(self, error: BaseException) -> None:
        """Let the peers know why this rank ends; waits until they can."""
        if self._store is None or self._done.is_set():
            return
        self._quiet.set()
        stopped = isinstance(error, KeyboardInterrupt)
        self._me = replace(self._me, failed=_told(error), stopped=stopped, leaving=True)
        self._exchange_now(seconds=2.0)

    def who_is_lost(self, seconds: float = 6.0) -> str:
        """After a collective failed: which rank, and why, as far as can be found out in time."""
        if self._store is None or self._done.is_set():
            return ""
        self._quiet.set()
        self._me = replace(self._me, leaving=True)
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self._exchange_now(seconds=0.5)
            for peer in self.peers:
                if verdict := self._lost(peer, sure=True):
                    return verdict
        return ""

    def _exchange_now(self, seconds: float) -> None:
        rounds = self._rounds + 2  # one may be under way that knows nothing of it yet
        until = time.monotonic() + seconds
        while self._rounds < rounds and time.monotonic() < until:
            self._wake.set()
            time.sleep(0.02)

    # The thread that talks: it may hang where the store does, and decides nothing.

    def _talk(self) -> None:
        while not self._done.is_set():
            try:
                self._write()
                self._read()
                self._rounds += 1
            except RuntimeError:
                pass  # no answer; the judge counts how long for
            self._wake.wait(BEAT_SECONDS)
            self._wake.clear()

    def _write(self) -> None:
        assert self._store is not None
        self._me = replace(self._me, number=self._me.number + 1)
        now = asdict(replace(self._me, meter=self.meter.read()))
        self._store.set(_key(self.rank), json.dumps(now))

    def _read(self) -> None:
        assert self._store is not None
        there = [p for p in self.peers if p.beat.number or self._store.check([_key(p.rank)])]
        texts = self._store.multi_get([_key(peer.rank) for peer in there])
        for peer, text in zip(there, texts, strict=True):
            peer.beat = Beat.from_json(text)

    # The thread that judges: it never waits for anything but the time.

    def _judge(self) -> None:
        before = self.meter.now()
        while not self._done.wait(BEAT_SECONDS / 2):
            now = self.meter.now()
            awake, before = min(now - before, 2 * BEAT_SECONDS), now
            self._pass(awake)
            verdict = self._verdict()
            if verdict and not self._quiet.is_set():
                self._end(verdict)
            self._report(now)

    def _pass(self, seconds: float) -> None:
        """Time went by: for the store, for every peer, and for those that keep us waiting."""
        new, self._judged_rounds = self._rounds != self._judged_rounds, self._rounds
        self._unanswered = 0.0 if new else self._unanswered + seconds
        mine = self.meter.read()
        for peer in self.peers:
            peer.passed(seconds)
            behind = peer.beat.meter.entered < mine.entered
            stuck = behind and overdue(mine, self.peer_seconds)
            peer.overdue = peer.overdue + seconds if stuck else 0.0

    def _verdict(self) -> str:
        """Why this process ends now, if it does."""
        if self._unanswered > self.peer_seconds:
            where = os.environ.get("MASTER_ADDR", "the first process")
            return (
                f"the store of the group, on {where}, has not answered for "
                f"{self._unanswered:.0f} s; that machine, its torchrun or the network is lost"
            )
        if waiting := self._kept_waiting():
            stack = main_stack()
            self._me = replace(self._me, failed=f"it kept the others waiting here:\n{stack}")
            self._exchange_now(seconds=2.0)
            return f"this rank keeps {waiting} waiting; it is here:\n{stack}"
        verdicts = (self._lost(peer) for peer in self.peers)
        return next((verdict for verdict in verdicts if verdict), "")

    def _kept_waiting(self) -> str:
        """Who has waited too long for this rank."""
        mine = self.meter.read()
        waiting = [
            str(peer)
            for peer in self.peers
            if peer.silent < GRACE_SECONDS
            and overdue(peer.beat.meter, self.peer_seconds)
            and mine.waiting is None
            and mine.entered < peer.beat.meter.entered
        ]
        return ", ".join(waiting)

    def _lost(self, peer: Peer, sure: bool = False) -> str:
        """What has become of a rank that no longer works; sure: some rank is known not to."""
        if peer.beat.failed and (sure or self._failed_us(peer)):
            lines = peer.beat.failed.strip().splitlines()
            # All of a traceback once, its last line from every other rank.
            text = "\n".join(lines) if self._first_left(peer) else lines[-1]
            return f"{peer} {'ended' if peer.beat.stopped else 'failed'}: {text}"
        if peer.beat.leaving:
            return ""
        state = peer.state()
        if state == "gone" and (sure or peer.silent > GRACE_SECONDS):
            return f"{peer} has died without a word: killed, or out of memory"
        if state == "stopped" and (sure or peer.silent > self.peer_seconds):
            _kill(peer.beat.pid)  # it cannot answer the SIGTERM for which torchrun waits 30 s
            return f"{peer} was stopped from outside (SIGSTOP) and silent for {peer.silent:.0f} s"
        if state == "unknown" and peer.silent > (SURE_SECONDS if sure else self.peer_seconds):
            return f"{peer} has been silent for {peer.silent:.0f} s; it or its machine is lost"
        if peer.overdue > GRACE_SECONDS:
            waiting = self.meter.read().waiting or 0.0
            return f"{peer} is stuck: the others have waited for it for {waiting:.0f} s"
        return ""

    def _failed_us(self, peer: Peer) -> bool:
        """Whether this rank waits for one that will never come, and does not end on its own."""
        if self.meter.read().waiting is not None:
            return peer.failing > GRACE_SECONDS
        return peer.failing > self.peer_seconds and not peer.beat.stopped

    def _first_left(self, lost: Peer) -> bool:
        return self.rank == (1 if lost.rank == 0 else 0)

    def _end(self, verdict: str) -> None:
        """This process, at once: its main thread waits where nobody will answer."""
        text = f"rank {self.rank} ends, for {verdict}"
        self._me = replace(self._me, leaving=True)  # nobody is to take this rank for the cause
        self._exchange_now(seconds=0.5)
        try:
            self.say(text)
            get_error_handler().record_exception(RuntimeError(text))  # for torchrun's summary
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(1)

    def _report(self, now: float) -> None:
        """The slowest rank since the last report, by the first rank."""
        since, before = self._reported
        if self.rank != 0 or now - since < self.report_seconds:
            return
        beats = {peer.rank: peer.beat.meter for peer in self.peers} | {0: self.meter.read()}
        self._reported = (now, beats)
        if before:
            found = straggler([Spell.between(before[r], beats[r]) for r in sorted(beats)])
            if found is not None:
                names = {0: f"rank 0 ({self._me.host})"} | {p.rank: str(p) for p in self.peers}
                self.say(f"{names[found.rank]} {found}")


def process(pid: int) -> tuple[str, str]:
    """State (one letter) and birth of a process; ("X", "") where there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "X", ""
    return fields[0], fields[19]


def main_stack() -> str:
    """Where the main thread is."""
    ident = threading.main_thread().ident
    frame = sys._current_frames().get(ident or 0)
    return "".join(traceback.format_stack(frame)) if frame is not None else "(unknown)\n"


def _place() -> str:
    """Kernel and namespace of process numbers; empty where they cannot be told."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _told(error: BaseException) -> str:
    """A traceback, unless the words are enough."""
    if isinstance(error, (ValueError, OSError, KeyboardInterrupt)):
        return f"{error}" or type(error).__name__
    return "".join(traceback.format_exception(error))


def _kill(pid: int) -> None:
    with contextlib.suppress(OSError):  # another rank was first
        os.kill(pid, signal.SIGKILL)


def _key(rank: int) -> str:
    return f"fairway/beat/{rank}"


def _on_stderr(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
