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
import os
import queue
import selectors
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Protocol

import numpy as np

ScorerFunction = Callable[[np.ndarray], object]  # what it returns is for `ask` to find out
Now = Callable[[], float]  # seconds since some moment
LONGEST_WAIT_SECONDS = 1e6  # where there is no deadline
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
        self._child: subprocess.Popen[bytes] | None = None
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  (lives as long as the scorer)

    def call(self, tokens: np.ndarray, limit_seconds: float) -> Answer:
        raw = np.ascontiguousarray(tokens, dtype=np.int64).tobytes()
        try:
            return self._exchange(raw, time.perf_counter() + limit_seconds)
        except TimeoutError:
            self._kill()
            return Answer(problem=f"no answer in {limit_seconds:.3g} s", died=True)
        except (EOFError, OSError):
            return Answer(problem=self._cause_of_death(), died=True)

    def fresh(self) -> "ProcessScorer":
        return ProcessScorer(self.file, self.function, self.arguments, self.environment)

    def close(self) -> None:
        self._kill()
        self._stderr.close()

    def _exchange(self, raw: bytes, deadline: float) -> Answer:
        child = self._child
        if child is None:
            # -P: this file's folder must not come before the scorer's own modules.
            command = [sys.executable, "-P", __file__, self.file, self.function, *self.arguments]
            child = self._child = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                bufsize=0,
                env=self.environment,
                start_new_session=True,  # so that whatever it starts can be ended with it
            )
        assert child.stdin is not None
        assert child.stdout is not None
        message = len(raw).to_bytes(8, "little") + raw
        while message:
            message = message[child.stdin.write(message) or 0 :]
        source = child.stdout.fileno()
        head = json.loads(
            _read(source, int.from_bytes(_read(source, 8, deadline), "little"), deadline)
        )
        sizes = head.pop("sizes")
        arrays = [_read(source, 8 * size, deadline) if size >= 0 else None for size in sizes]
        nats, num_bytes = (None if a is None else np.frombuffer(a) for a in arrays)
        return Answer(nats=nats, num_bytes=num_bytes, shape=tuple(head.pop("shape")), **head)

    def _kill(self) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                pipe.close()

    def _cause_of_death(self) -> str:
        child = self._child
        code = child.wait() if child is not None else None
        self._kill()
        self._stderr.seek(max(0, self._stderr.seek(0, os.SEEK_END) - 2000))
        lines = self._stderr.read().decode(errors="replace").strip().splitlines()
        if code is not None and code < 0:
            how = f"its process was ended by {signal.Signals(-code).name}"
        else:
            how = f"its process ended with status {code}"
        return f"{how} ({lines[-1]})" if lines else how


def _read(source: int, size: int, deadline: float) -> bytes:
    """Exactly `size` bytes; TimeoutError after `deadline` (perf_counter), EOFError at the end."""
    parts = bytearray()
    with selectors.DefaultSelector() as ready:
        ready.register(source, selectors.EVENT_READ)
        while len(parts) < size:
            left = min(deadline - time.perf_counter(), LONGEST_WAIT_SECONDS)
            if not ready.select(max(0.0, left)):
                raise TimeoutError
            part = os.read(source, size - len(parts))
            if not part:
                raise EOFError
            parts += part
    return bytes(parts)


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
        return replace(answer, printed=printed.getvalue()[:200])

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


def serve(file: Path, function: str, arguments: Sequence[str] = ()) -> None:
    """Answer requests on stdin until it closes; the scorer itself sees neither pipe."""
    requests, replies = os.dup(0), os.dup(1)
    silence = os.open(os.devnull, os.O_RDONLY)
    os.dup2(silence, 0)
    with tempfile.TemporaryFile() as capture, os.fdopen(requests, "rb") as source:
        os.dup2(capture.fileno(), 1)
        sys.argv = [str(file), *arguments]
        found, problem = None, ""
        try:
            found = load_function(file, function)
        except BaseException as error:
            problem = f"{file.name} does not load: {_describe(error)}"
        while len(size := source.read(8)) == 8:
            raw = source.read(int.from_bytes(size, "little"))
            tokens = np.frombuffer(raw, dtype=np.int64)
            answer = ask(found, tokens) if found else Answer(problem=problem, died=True)
            with contextlib.suppress(ValueError, AttributeError):  # the scorer may have closed it
                sys.stdout.flush()
            os.lseek(1, 0, os.SEEK_SET)
            printed = os.read(1, 200).decode(errors="replace")
            os.ftruncate(1, 0)  # a talkative scorer must not fill the disk
            os.lseek(1, 0, os.SEEK_SET)
            _send(replies, replace(answer, printed=printed))


def _send(pipe: int, answer: Answer) -> None:
    arrays = (answer.nats, answer.num_bytes)
    fields = ("shape", "dtype", "problem", "died", "printed", "mutated")
    head = {name: getattr(answer, name) for name in fields}
    head["sizes"] = [-1 if a is None else a.size for a in arrays]
    text = json.dumps(head).encode()
    message = len(text).to_bytes(8, "little") + text
    message += b"".join(a.tobytes() for a in arrays if a is not None)
    while message:
        message = message[os.write(pipe, message) :]


if __name__ == "__main__":
    serve(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
