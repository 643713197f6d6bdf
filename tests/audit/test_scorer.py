"""A scorer may do anything at all, and the audit carries on."""

import threading
from pathlib import Path

import numpy as np
import pytest

from fairway.audit.scorer import Answer, Session, open_scorer

SCRIPT = """
import ctypes, os, sys, time
import numpy as np

def fine(tokens): return np.arange(len(tokens) - 1) / 7
def single(tokens): return np.arange(len(tokens) - 1, dtype=np.float32) / 7
def pair(tokens): return [1.0] * (len(tokens) - 1), 12
def raises(tokens): raise KeyError("no such token")
def leaves(tokens): sys.exit("bye")
def dies(tokens): os._exit(3)
def crashes(tokens): ctypes.string_at(0)
def hangs(tokens): time.sleep(60)
def talks(tokens): print("reading"); os.write(1, b"raw"); return fine(tokens)
def listens(tokens): return fine(tokens) if sys.stdin.read() == "" else None
def scribbles(tokens): tokens[:] = 0; return fine(tokens)
def nothing(tokens): return None
def words(tokens): return ["a"] * (len(tokens) - 1)
def mean(tokens): return 1.5
def square(tokens): return np.ones((len(tokens), 4))
"""


@pytest.fixture
def call(tmp_path: Path):
    file = tmp_path / "script.py"
    file.write_text(SCRIPT)
    opened = []

    def ask(function: str, limit: float = 20.0, times: int = 1) -> Answer:
        scorer = open_scorer(f"{file}:{function}")
        opened.append(scorer)
        for _ in range(times - 1):
            scorer.call(np.arange(9), limit)
        return scorer.call(np.arange(9), limit)

    yield ask
    for scorer in opened:
        scorer.close()


def test_nats_come_through_the_pipe_bit_for_bit(call) -> None:
    nats = call("fine").nats
    assert np.array_equal(nats, np.arange(8) / 7)
    answer = call("single", times=2)
    assert answer.dtype == "float32"
    assert np.array_equal(answer.nats, (np.arange(8, dtype=np.float32) / 7).astype(np.float64))


def test_a_pair_is_nats_and_bytes(call) -> None:
    answer = call("pair")
    assert answer.num_bytes.tolist() == [12.0]
    assert answer.nats.tolist() == [1.0] * 8


@pytest.mark.parametrize(
    ("function", "words"),
    [
        ("raises", "KeyError: 'no such token' (script.py, line 8)"),
        ("leaves", "SystemExit: bye"),
        ("dies", "ended with status 3"),
        ("crashes", "SIGSEGV"),
        ("missing", "no function 'missing'; it has fine, single"),
    ],
)
def test_a_death_is_said_and_the_next_call_works_the_same(call, function: str, words: str) -> None:
    answer = call(function, times=2)
    assert answer.died
    assert words in answer.problem


def test_a_hang_is_ended(call) -> None:
    answer = call("hangs", limit=0.5)
    assert answer.died
    assert answer.problem == "no answer in 0.5 s"


def test_the_scorer_has_no_hold_on_the_pipes(call) -> None:
    answer = call("talks", times=2)
    assert answer.printed == "reading\nraw" or answer.printed == "rawreading\n"
    assert answer.nats is not None
    assert call("listens").nats is not None


def test_writing_into_the_tokens_is_noticed(call) -> None:
    assert call("scribbles").mutated
    assert not call("fine").mutated


@pytest.mark.parametrize(
    ("function", "words"),
    [("nothing", "NoneType"), ("words", "list"), ("mean", "shape ()"), ("square", "shape (9, 4)")],
)
def test_what_is_no_row_of_nats_is_described(call, function: str, words: str) -> None:
    answer = call(function)
    assert answer.nats is None
    assert not answer.died
    assert words in answer.problem


def test_a_function_of_this_process_is_contained_too() -> None:
    for_ever = threading.Event()

    def hangs(tokens: np.ndarray) -> np.ndarray:
        if len(tokens) == 5:
            for_ever.wait()
        else:
            print("loud")
        return np.ones(len(tokens) - 1)

    scorer = open_scorer(hangs)
    assert scorer.fresh() is None
    assert scorer.call(np.arange(5), 0.1).died
    answer = scorer.call(np.arange(6), 5.0)
    assert answer.nats is not None
    assert answer.printed == "loud\n"
    for_ever.set()
    scorer.close()


@pytest.mark.parametrize("address", ["nowhere.py:score", "script.py", "script.py:1"])
def test_an_address_that_is_none_is_a_user_error(address: str) -> None:
    with pytest.raises(ValueError, match=r"FILE\.py:FUNCTION"):
        open_scorer(address)


def test_a_session_counts_calls_and_deaths() -> None:
    def odd(tokens: np.ndarray) -> np.ndarray:
        return np.ones(1 // (len(tokens) % 2))

    session = Session(open_scorer(odd), stop_at=np.inf)
    for n in (3, 4, 5):
        session.call(np.arange(n))
    assert session.calls == 3
    assert len(session.died) == 1
    assert "ZeroDivisionError" in session.died[0]
    session.scorer.close()
