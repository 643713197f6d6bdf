"""Clients that ask a server without a break: answers, errors, speed, memory. By hand.

    python benchmarks/serve.py runs/pocket --seconds 600

A model file or a run folder; without one it makes a small run to ask. The server is a process of
its own, as `fairway serve` starts it; the clients are OpenAI's own, in threads here. One client in
turn streams, asks for a whole answer, asks for two with `logprobs` and `echo`, and scores a text,
as the page does. Exit status 1 where a single request failed.
"""

import argparse
import itertools
import json
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from measuring.rows import show
from measuring.small_run import given_or_small_run
from openai import OpenAI

TEXT = "The function returns a list of all names that were bound in the module. " * 3


@dataclass
class Told:
    """What all clients were told."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    tokens: int = 0
    errors: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, kind: str, seconds: float, tokens: int) -> None:
        with self.lock:
            self.seconds.setdefault(kind, []).append(seconds)
            self.tokens += tokens


class Client:
    """One of those who ask, one request after the other."""

    def __init__(self, address: str, number: int, max_tokens: int) -> None:
        self.address, self.number, self.max_tokens = address, number, max_tokens
        self.openai = OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0, timeout=120)
        self.model = next(iter(self.openai.models.list())).id

    def ask_until(self, end: float, told: Told) -> None:
        kinds = {"stream": self.stream, "whole": self.whole, "echo": self.echo, "score": self.score}
        for turn in itertools.count(self.number):
            if time.monotonic() >= end:
                return
            kind, ask = list(kinds.items())[turn % len(kinds)]
            begin = time.monotonic()
            try:
                tokens = ask(turn)
            except Exception as error:  # whatever it is, it is counted
                with told.lock:
                    told.errors.append(f"{kind}: {type(error).__name__}: {error}"[:200])
                continue
            told.add(kind, time.monotonic() - begin, tokens)

    def _settings(self, turn: int) -> dict:
        prompt = TEXT[: 20 + 7 * (turn % 20)]
        return {
            "model": self.model, "prompt": prompt, "max_tokens": self.max_tokens, "seed": turn
        }  # fmt: skip

    def stream(self, turn: int) -> int:
        asked = self._settings(turn) | {"stream": True, "stream_options": {"include_usage": True}}
        parts = list(self.openai.completions.create(**asked))
        assert parts[-1].usage is not None, "the stream ended before its usage"
        return parts[-1].usage.completion_tokens

    def whole(self, turn: int) -> int:
        found = self.openai.completions.create(**self._settings(turn), stop=["\n\n"])
        return _written(found)

    def echo(self, turn: int) -> int:
        asked = self._settings(turn)
        found = self.openai.completions.create(**asked, n=2, logprobs=3, echo=True)
        assert all(choice.text.startswith(asked["prompt"]) for choice in found.choices)
        return _written(found)

    def score(self, turn: int) -> int:
        body = json.dumps({"text": TEXT[: 20 + 7 * (turn % 20)]}).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.address}/score", body, headers)
        with urllib.request.urlopen(request, timeout=120) as answer:
            assert json.loads(answer.read())["exact"]
        return 0


def _written(found) -> int:
    assert found.usage is not None
    return found.usage.completion_tokens


@contextmanager
def server(model: Path) -> Iterator[tuple[str, int]]:
    """Address and process id; asked to stop in the end, which it has to do well."""
    words = [sys.executable, "-m", "fairway", "serve", str(model), "--port", "0"]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        said = process.stderr.readline()
        if "http://" not in said:
            raise SystemExit(f"no server: {said}")
        yield said.split(" at ")[1].split(",")[0], process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        rest = process.communicate(timeout=60)[1]
    if process.returncode or rest:
        raise SystemExit(f"the server ended with {process.returncode}: {rest[-500:]}")


def memory_megabytes(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def measure(model: Path, clients: int, seconds: float, max_tokens: int) -> int:
    told = Told()
    with server(model) as (address, pid):
        asking = [Client(address, number, max_tokens) for number in range(clients)]
        asking[0].ask_until(time.monotonic() + 0.1, Told())  # the first request warms up
        before, begin = memory_megabytes(pid), time.monotonic()
        arguments = (begin + seconds, told)
        threads = [threading.Thread(target=c.ask_until, args=arguments) for c in asking]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        took, after = time.monotonic() - begin, memory_megabytes(pid)
    for kind, times in sorted(told.seconds.items()):
        show(
            f"serve: {kind}",
            answers=len(times),
            median_seconds=statistics.median(times),
            slowest_seconds=max(times),
        )
    show(
        "serve",
        clients=clients,
        seconds=took,
        answers=sum(map(len, told.seconds.values())),
        errors=len(told.errors),
        tokens_per_second=told.tokens / took,
        megabytes_before=before,
        megabytes_after=after,
    )
    for error in told.errors[:5]:
        print(error, file=sys.stderr)
    return int(bool(told.errors))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", type=Path, nargs="?", help="model file, or run folder")
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--max-tokens", type=int, default=32)
    parser.add_argument("--brief", action="store_true", help="a few seconds")
    options = parser.parse_args()
    seconds = min(options.seconds, 3.0) if options.brief else options.seconds
    if options.model is not None:
        model = options.model / "model.fwy" if options.model.is_dir() else options.model
        return measure(model, options.clients, seconds, options.max_tokens)
    with given_or_small_run(None, None) as (run, _):
        return measure(run / "model.fwy", options.clients, seconds, options.max_tokens)


if __name__ == "__main__":
    sys.exit(main())
