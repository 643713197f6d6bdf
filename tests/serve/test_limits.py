"""What one asks for does not keep others from theirs: seconds, places, and who leaves."""

import http.client
import json
import os
import time
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest

from .conftest import served
from .test_guard import JSON, answer, completion
from .test_openai_client import ask, openai

LONG = {"max_tokens": 4000, "temperature": 1.5, "seed": 1}


def begun(address: str) -> http.client.HTTPConnection:
    """A stream of which the first event has come."""
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=30)
    body = completion(stream=True, n=16, **LONG)
    connection.request("POST", "/v1/completions", body, JSON)
    found = connection.getresponse()
    assert (found.status, found.headers["content-type"].split(";")[0]) == (200, "text/event-stream")
    assert found.readline().startswith(b"data: {")
    connection.found = found  # type: ignore[attr-defined]  # keeps it open
    return connection


def until_idle(address: str) -> None:
    end = time.monotonic() + 10
    while answer(address, "GET", "/health")[1]["active"]:
        assert time.monotonic() < end, "who has left still keeps the model busy"
        time.sleep(0.05)


def test_who_leaves_a_stream_makes_room(models) -> None:
    with served(models["bytes"], active=1, waiting=0) as server:
        connection = begun(server.address)
        status, said, got = answer(server.address, "POST", "/v1/completions", completion(), JSON)
        assert (status, said["error"]["type"]) == (429, "rate_limit_error")
        assert got["retry-after"] == "1"
        status, _, _ = answer(
            server.address, "POST", "/v1/completions", completion(stream=True), JSON
        )
        assert status == 429  # by its status, and not in the middle of a stream
        connection.found.close()  # type: ignore[attr-defined]
        connection.close()
        until_idle(server.address)
        assert answer(server.address, "POST", "/score", b'{"text": "a"}', JSON)[0] == 200


def test_who_leaves_before_the_answer_makes_room(models) -> None:
    with served(models["bytes"]) as server:
        connection = http.client.HTTPConnection(urlsplit(server.address).netloc, timeout=30)
        connection.request("POST", "/v1/completions", completion(n=16, **LONG), JSON)
        end = time.monotonic() + 10
        while not answer(server.address, "GET", "/health")[1]["active"]:
            assert time.monotonic() < end
        connection.close()
        until_idle(server.address)


def test_a_long_answer_does_not_hold_up_a_short_one(models) -> None:
    with served(models["bytes"]) as server:
        connection = begun(server.address)
        assert ask(server.address, max_tokens=3).usage.completion_tokens <= 3
        assert answer(server.address, "GET", "/health")[1]["active"] == 1  # is still at it
        connection.close()


def test_who_asks_for_too_much_is_told_so_in_the_stream_too(models) -> None:
    with served(models["bytes"], seconds=0.5) as server:
        with pytest.raises(openai.InternalServerError, match=r"within 0\.5 seconds"):
            ask(server.address, n=16, **LONG)
        with pytest.raises(openai.APIError, match=r"within 0\.5 seconds"):
            list(ask(server.address, n=16, stream=True, **LONG))
        until_idle(server.address)


def test_the_server_does_not_forget_what_is_on_its_way_when_it_stops(models) -> None:
    with served(models["bytes"]) as server:
        stream = ask(server.address, stream=True, max_tokens=200, seed=1, temperature=2, n=2)
        parts = [next(iter(stream))]
        server.stop()
        parts += list(stream)
    reasons = [c.finish_reason for part in parts for c in part.choices]
    assert len([reason for reason in reasons if reason]) == 2


def test_a_file_whose_name_is_no_text_has_a_name_all_the_same(models) -> None:
    odd = replace(models["bytes"], path=Path(os.fsdecode(b"caf\xe9.fwy")))
    with served(odd) as server:
        assert server.name == r"caf\udce9"
        for place in ("/health", "/v1/models", f"/v1/models/{quote(server.name)}"):
            assert answer(server.address, "GET", place)[0] == 200


def test_a_fault_of_ours_is_told_in_the_same_shape(models, monkeypatch) -> None:
    def broken(*_):
        yield
        raise ZeroDivisionError

    monkeypatch.setattr("fairway.serve.app.complete", broken)
    monkeypatch.setattr("fairway.serve.app.score_text", broken)
    with served(models["bytes"]) as server:
        status, said, _ = answer(server.address, "POST", "/score", b'{"text": "a"}', JSON)
        assert (status, said["error"]["type"]) == (500, "api_error")
        assert "ZeroDivision" not in json.dumps(said)
        assert answer(server.address, "GET", "/health")[1]["active"] == 0
