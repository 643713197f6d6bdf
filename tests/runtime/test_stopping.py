"""Who looks at the signals is given time; anywhere else they end the work."""

# ruff: noqa: PT012

import os
import signal

import pytest

from fairway.runtime.stopping import SIGNALS, Stopped, listening


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", SIGNALS)
def test_whoever_looks_finishes_first(number: signal.Signals) -> None:
    said = f"{number.name} after step 3"
    with pytest.raises(Stopped, match=said) as stopped, listening() as stop, stop.looked_at():
        assert not stop.asked
        send(number)
        assert stop.asked
        raise stop.stopped(f"{stop.name} after step 3")
    assert stopped.value.signal == number


def test_anything_else_ends_at_once() -> None:
    with pytest.raises(Stopped, match="stopped by SIGTERM") as stopped, listening():
        send(signal.SIGTERM)
    assert stopped.value.signal == signal.SIGTERM
    assert not isinstance(stopped.value, Exception)  # an audit catches those of what it audits


def test_what_comes_after_the_last_look_is_obeyed_at_the_end() -> None:
    done = []
    with pytest.raises(Stopped, match="SIGUSR1"), listening() as stop, stop.looked_at():
        send(signal.SIGUSR1)
        done.append("saved")
    assert done


def test_a_second_signal_is_obeyed_at_once_but_not_the_echo_of_the_first() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(Stopped), listening() as stop, stop.looked_at():
        for _ in range(2):  # the same one twice, as torchrun's workers get it
            send(signal.SIGINT)
        assert stop.asked
        stop.patience_seconds = 0.0
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
