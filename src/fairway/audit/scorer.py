"""A scorer behind a pipe: called as often as the audit likes, harmless when it hangs or dies.

Both ends are here. `ProcessScorer` starts this very file as a program in a process of its own,
which loads FILE.py and calls FUNCTION on the token arrays that come down the pipe; arrays travel as
raw bytes, because unpickling what a stranger's process sends would run the stranger's code here.
`InlineScorer` does the same for a function that exists only in this process. `Session` counts what
was asked and seen. Nothing here judges a score, and nothing here imports the rest of the package.
"""

import contextlib
import importlib.util
import io
import json
import multiprocessing
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path
from types import ModuleType
from typing import Protocol

import numpy as np

ScorerFunction = Callable[[np.ndarray], object]  # what it returns is for `ask` to find out
Now = Callable[[], float]  # seconds since some moment
LONGEST_WAIT_SECONDS = 1e6  # where there is no deadline
MOST_PRINTED = 200  # bytes of what a scorer prints that are kept
GRACE_SECONDS = 5.0  # how far one slow call may carry an audit past its time


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What one call gave.

    nats       (m,) float64; None where the call failed or gave nothing of that shape
    num_bytes  (m,) float64, or (1,) when the scorer states a total; None where it states none
    dtype      of the nats as they were returned, before the conversion to float64
    shape      of the nats as they were returned
    problem    why there are no usable nats ("ValueError: ... (line 12)", "no answer in 5 s")
    died       the call did not return at all: it raised, hung, or took its process along
    printed    the beginning of what the scorer wrote to stdout during the call
    mutated    the scorer wrote into the array it was given
    seconds    the call took, by the session's clock
    """

    nats: np.ndarray | None = None
    num_bytes: np.ndarray | None = None
    dtype: str = ""
    shape: tuple[int, ...] = ()
    problem: str = ""
    died: bool = False
    printed: str = ""
    mutated: bool = False
    seconds: float = 0.0


class Scorer(Protocol):
    """Something that scores a stream of tokens and survives what it calls."""

    name: str

    def call(self, tokens: np.ndarray, limit_seconds: float) -> Answer: ...

    def fresh(self) -> "Scorer | None":
        """The same scorer without anything it may have kept; None where that cannot be had."""
        ...

    def close(self) -> None: ...


def open_scorer(scorer: "ScorerFunction | str") -> Scorer:
    """`FILE.py:FUNCTION` in a process of its own, or a function in this one.

    ValueError: the address has no function, or the file does not exist.
    """
    if not isinstance(scorer, str):
        return InlineScorer(scorer)
    file, colon, function = scorer.rpartition(":")
    if not colon or not function.isidentifier():
        raise ValueError(f"{scorer!r} names no function; write it as FILE.py:FUNCTION")
    if not Path(file).is_file():
        raise ValueError(f"{file!r} does not exist; FILE.py:FUNCTION takes the path of a script")
    return ProcessScorer(file, function)


# --- the calling side -----------------------------------------------------------------------------


class ProcessScorer:
    """FUNCTION of FILE.py in a child process, started at the first call and again after a death.

    arguments    found by FILE.py in sys.argv
    environment  of the process; None: this one's
    """

    def __init__(
        self,
        file: str,
        function: str,
        arguments: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.file, self.function = file, function
        self.arguments, self.environment = tuple(arguments), environment
        self.name = f"{file}:{function}"
        self._child: tuple[subprocess.Popen[bytes], Connection] | None = None
        self._stdout = tempfile.TemporaryFile()  # noqa: SIM115  (these live as long as the scorer)
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115

    def call(self, tokens: np.ndarray, limit_seconds: float) -> Answer:
        self._child = self._child or self._start()
        pipe = self._child[1]
        try:
            pipe.send_bytes(np.ascontiguousarray(tokens, dtype=np.int64).tobytes())
            if not pipe.poll(min(limit_seconds, LONGEST_WAIT_SECONDS)):
                self._kill()
                return Answer(problem=f"no answer in {limit_seconds:.3g} s", died=True)
            head = json.loads(pipe.recv_bytes())
            arrays = [np.frombuffer(pipe.recv_bytes()) if there else None for there in head["sent"]]
        except (EOFError, OSError):
            return Answer(problem=self._cause_of_death(), died=True)
        self._stdout.seek(0)
        printed = self._stdout.read(MOST_PRINTED).decode(errors="replace")
        self._stdout.seek(0)
        self._stdout.truncate()  # a talkative scorer must not fill the disk
        answer = Answer(nats=arrays[0], num_bytes=arrays[1], printed=printed, **head["fields"])
        return replace(answer, shape=tuple(answer.shape))

    def fresh(self) -> "ProcessScorer":
        return ProcessScorer(self.file, self.function, self.arguments, self.environment)

    def close(self) -> None:
        self._kill()
        self._stdout.close()
        self._stderr.close()

    def _start(self) -> tuple[subprocess.Popen[bytes], Connection]:
        ours, theirs = multiprocessing.Pipe()
        with theirs:
            # -P: this file's folder must not come before the scorer's own modules.
            command = [sys.executable, "-P", __file__, str(theirs.fileno()), self.file]
            child = subprocess.Popen(
                [*command, self.function, *self.arguments],
                stdin=subprocess.DEVNULL,
                stdout=self._stdout,
                stderr=self._stderr,
                pass_fds=[theirs.fileno()],
                env=self.environment,
                start_new_session=True,  # so that whatever it starts can be ended with it
            )
        return child, ours

    def _kill(self) -> None:
        if self._child is None:
            return
        (child, pipe), self._child = self._child, None
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
        pipe.close()
        child.wait()

    def _cause_of_death(self) -> str:
        code = self._child[0].wait() if self._child else None
        self._kill()
        self._stderr.seek(max(0, self._stderr.seek(0, os.SEEK_END) - 2000))
        lines = self._stderr.read().decode(errors="replace").strip().splitlines()
        how = f"its process ended with status {code}"
        if code is not None and code < 0:
            how = f"its process was ended by {signal.Signals(-code).name}"
        return f"{how} ({lines[-1]})" if lines else how


class InlineScorer:
    """A function of this process, called on a thread so that a hang does not stop the audit.

    It cannot be restarted, so nothing is learned of what it keeps from before the audit, and a
    crash of the interpreter takes the audit along.
    """

    def __init__(self, function: ScorerFunction) -> None:
        self.function = function
        self.name = getattr(function, "__qualname__", type(function).__name__)
        self._asked: queue.SimpleQueue[np.ndarray | None] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[Answer] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def call(self, tokens: np.ndarray, limit_seconds: float) -> Answer:
        if self._thread is None:
            self._asked, self._answers = queue.SimpleQueue(), queue.SimpleQueue()
            self._thread = threading.Thread(
                target=_serve_inline, args=(self.function, self._asked, self._answers), daemon=True
            )
            self._thread.start()
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            self._asked.put(np.array(tokens, dtype=np.int64))
            try:
                answer = self._answers.get(timeout=limit_seconds)
            except queue.Empty:
                self._thread = None  # left behind with its queues; the next call gets new ones
                answer = Answer(problem=f"no answer in {limit_seconds:.3g} s", died=True)
        return replace(answer, printed=printed.getvalue()[:MOST_PRINTED])

    def fresh(self) -> None:
        return None

    def close(self) -> None:
        self._asked.put(None)


def _serve_inline(
    function: ScorerFunction,
    asked: "queue.SimpleQueue[np.ndarray | None]",
    answers: "queue.SimpleQueue[Answer]",
) -> None:
    while (tokens := asked.get()) is not None:
        answers.put(ask(function, tokens))


@dataclass
class Session:
    """One audit's conversation with a scorer: every call goes through here and is counted.

    stop_at  time after which no probe should begin another call
    now      the clock by which that is known; a call itself is always ended by the real one
    died     one line for each call that gave nothing
    """

    scorer: Scorer
    stop_at: float
    call_limit_seconds: float = 60.0
    calls: int = 0
    died: list[str] = field(default_factory=list)
    printed: str = ""
    mutated: bool = False
    now: Now = time.perf_counter

    def call(self, tokens: np.ndarray) -> Answer:
        # A call begun is given time to end, for a scorer cut short by our clock has done no wrong.
        begin = self.now()
        limit = min(self.call_limit_seconds, max(GRACE_SECONDS, self.stop_at - begin))
        answer = self.scorer.call(tokens, limit)
        self.calls += 1
        self.printed = self.printed or answer.printed
        self.mutated = self.mutated or answer.mutated
        if answer.died:
            self.died.append(answer.problem)
        return replace(answer, seconds=self.now() - begin)

    def seconds_left(self) -> float:
        return self.stop_at - self.now()

    def spent(self, typical_seconds: float) -> bool:
        """Whether another call would run over the time, or the scorer dies too often to go on."""
        return self.seconds_left() < typical_seconds or len(self.died) > 8


# --- the called side ------------------------------------------------------------------------------


def ask(function: ScorerFunction, tokens: np.ndarray) -> Answer:
    """Call a scorer on tokens (n,) int64 and put what it returns into an `Answer`."""
    given = tokens.copy()
    try:
        result = function(given)
    except BaseException as error:  # a script may well call sys.exit
        return Answer(problem=_describe(error), died=True)
    mutated = not np.array_equal(given, tokens)
    nats, num_bytes = result if isinstance(result, tuple) and len(result) == 2 else (result, None)
    try:
        row, dtype = _as_floats(nats)
        counts = None if num_bytes is None else _as_floats(num_bytes)[0].reshape(-1)
    except (TypeError, ValueError) as error:
        kind = type(nats).__name__
        return Answer(problem=f"returned {kind}, not an array of numbers ({error})", dtype=kind)
    answer = Answer(num_bytes=counts, dtype=dtype, shape=row.shape, mutated=mutated)
    if row.ndim != 1:
        return replace(answer, problem=f"returned an array of shape {row.shape}, not one per token")
    return replace(answer, nats=row)


def _as_floats(values: object) -> tuple[np.ndarray, str]:
    dtype = str(getattr(values, "dtype", type(values).__name__)).removeprefix("torch.")
    if detach := getattr(values, "detach", None):  # a tensor anywhere; numpy knows no bfloat16
        values = detach().double().cpu().numpy()
    array = np.asarray(values)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"dtype {array.dtype}")
    return array.astype(np.float64), dtype


def _describe(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename != __file__]
    where = f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""
    return f"{type(error).__name__}: {error}{where}"


def load_function(file: Path, function: str) -> ScorerFunction:
    """Run FILE as a module, with its folder importable as for a script, and take a name from it."""
    sys.path.insert(0, str(file.resolve().parent))
    name = f"audited_{file.stem}" if file.stem in sys.modules else file.stem
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} is not a Python file")
    module: ModuleType = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickles of the script look it up here
    spec.loader.exec_module(module)
    found = getattr(module, function, None)
    if not callable(found):
        own = [n for n, v in vars(module).items() if getattr(v, "__module__", "") == name]
        names = [n for n in own if callable(getattr(module, n)) and not n.startswith("_")]
        raise AttributeError(f"{file.name} has no function {function!r}; it has {', '.join(names)}")
    return found


def serve(pipe: Connection, file: Path, function: str, arguments: Sequence[str]) -> None:
    """Answer requests until the pipe closes."""
    sys.argv = [str(file), *arguments]
    found, problem = None, ""
    try:
        found = load_function(file, function)
    except BaseException as error:
        problem = f"{file.name} does not load: {_describe(error)}"
    while True:
        tokens = np.frombuffer(pipe.recv_bytes(), dtype=np.int64)
        answer = ask(found, tokens) if found else Answer(problem=problem, died=True)
        with contextlib.suppress(ValueError, AttributeError):  # the scorer may have closed it
            sys.stdout.flush()
        names = ("shape", "dtype", "problem", "died", "mutated")
        fields = {name: getattr(answer, name) for name in names}
        arrays = (answer.nats, answer.num_bytes)
        pipe.send_bytes(
            json.dumps({"fields": fields, "sent": [a is not None for a in arrays]}).encode()
        )
        for array in arrays:
            if array is not None:
                pipe.send_bytes(array.tobytes())


if __name__ == "__main__":
    with contextlib.suppress(EOFError):
        serve(Connection(int(sys.argv[1])), Path(sys.argv[2]), sys.argv[3], sys.argv[4:])
