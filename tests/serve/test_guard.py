"""Who is not meant to ask is told so, in OpenAI's shape, and costs nothing."""

import http.client
import json
import socket
import time
from dataclasses import replace
from urllib.parse import urlsplit

import pytest

from fairway.serve.config import ServeConfig
from fairway.serve.server import ModelServer

from .conftest import served

TOKEN = "0123456789abcdef0123"
JSON = {"Content-Type": "application/json"}
WHOLE = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"


def answer(
    address: str, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
) -> tuple[int, dict, dict[str, str]]:
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=30)
    connection.request(method, path, body or None, headers or {})
    found = connection.getresponse()
    data = found.read()
    connection.close()
    kind = found.headers["content-type"] or ""
    return found.status, json.loads(data) if "json" in kind else {}, dict(found.headers)


def completion(**asked) -> bytes:
    return json.dumps({"model": "tiny", "prompt": "a", "max_tokens": 2} | asked).encode()


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "[::1", "10.0.0.1"])
def test_a_name_that_only_points_here_is_refused(addresses, host: str) -> None:
    status, said, _ = answer(addresses["bytes"], "GET", "/v1/models", headers={"Host": host})
    assert (status, said["error"]["type"]) == (421, "invalid_request_error")


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:80", "127.0.0.1", "[::1]:9"])
def test_the_names_of_this_machine_are_its_own(addresses, host: str) -> None:
    assert answer(addresses["bytes"], "GET", "/v1/models", headers={"Host": host})[0] == 200


def test_other_sites_pages_may_not_ask_and_are_told_nothing(addresses) -> None:
    address = addresses["bytes"]
    for origin in ("https://evil.example", "null", "http://localhost:1", "http://[", ""):
        headers = JSON | {"Origin": origin}
        status, _, got = answer(address, "POST", "/score", b'{"text": "a"}', headers)
        assert status == 403
        assert not [name for name in got if name.lower().startswith("access-control")]
    own = JSON | {"Origin": address}
    assert answer(address, "POST", "/score", b'{"text": "a"}', own)[0] == 200
    # What a page may send without asking first is no JSON by its type.
    plain = {"Content-Type": "text/plain"}
    assert answer(address, "POST", "/v1/completions", completion(), plain)[0] == 415
    assert answer(address, "OPTIONS", "/v1/completions", headers={"Origin": "http://x"})[0] == 403


def test_a_token_is_asked_for_where_there_is_one(models) -> None:
    with served(models["bytes"], TOKEN) as server:
        for shown in ({}, {"Authorization": "Bearer no"}, {"Authorization": f"Bearer {TOKEN} "}):
            status, said, got = answer(server.address, "GET", "/v1/models", headers=shown)
            if shown.get("Authorization", "").strip().endswith(TOKEN):
                continue  # blanks at the end of a header are none of it
            assert (status, said["error"]["code"]) == (401, "invalid_api_key")
            assert got["www-authenticate"] == "Bearer"
        good = {"Authorization": f"Bearer {TOKEN}"} | JSON
        assert answer(server.address, "POST", "/v1/completions", completion(), good)[0] == 200
        assert answer(server.address, "GET", "/")[0] == 200  # holds nothing of anybody's
        assert answer(server.address, "POST", "/score", b'{"text": "a"}', JSON)[0] == 401


@pytest.mark.parametrize(
    ("settings", "token", "said"),
    [
        ({"host": "0.0.0.0"}, TOKEN, "--expose"),
        ({"host": "example.org"}, TOKEN, "--expose"),
        ({"host": "0.0.0.0", "expose": True}, None, "needs a token"),
        ({"expose": True}, "short", "5 characters"),
        ({"port": 70000}, None, "65535"),
        ({"seconds": 0}, None, "positive"),
    ],
)
def test_nothing_is_exposed_by_accident(models, settings: dict, token, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ModelServer(models["bytes"], replace(ServeConfig(port=0), **settings), token)


def test_exposed_it_answers_to_any_name_with_the_token(models) -> None:
    with served(models["bytes"], TOKEN, host="0.0.0.0", expose=True) as server:
        address = server.address.replace("0.0.0.0", "127.0.0.1")
        headers = {"Host": "my.server.example", "Authorization": f"Bearer {TOKEN}"}
        assert answer(address, "GET", "/v1/models", headers=headers)[0] == 200
        assert answer(address, "GET", "/v1/models", headers={"Host": "x"})[0] == 401


def test_a_port_that_is_taken_is_said(addresses, models) -> None:
    port = urlsplit(addresses["bytes"]).port
    assert port
    with pytest.raises(ValueError, match=f"port {port}: .*--port 0"):
        ModelServer(models["bytes"], ServeConfig(port=port))


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400), (b"{", 400), (b"[]", 400), (b"\xff\xfe", 400), (b'{"model": NaN}', 400),
        (b"[" * 100_000, 400), (b'{"model": "tiny", "prompt": "\\ud800"}', 400),
        (b"9" * 6000, 400), (b'{"prompt": "a"}', 400), (b" " * (1 << 20) + b"{}", 413),
        (b'{"model": "tiny", "model": "tiny"}', 400), (b'{"model": "tiny", "top_p": 1e999}', 400),
        (b'{"model": "\\ud800"}', 404), (b'{"model": "tiny", "\\ud800": 1}', 400),
    ],
)  # fmt: skip
def test_what_is_no_request_is_refused(addresses, body: bytes, status: int) -> None:
    found, said, _ = answer(addresses["bytes"], "POST", "/v1/completions", body, JSON)
    assert (found, set(said["error"])) == (status, {"message", "type", "param", "code"})


def test_a_body_without_a_length_is_measured_as_it_comes(addresses) -> None:
    connection = http.client.HTTPConnection(urlsplit(addresses["bytes"]).netloc, timeout=30)
    parts = (b"x" * (1 << 16) for _ in range(20))
    connection.request("POST", "/score", parts, JSON, encode_chunked=True)
    assert connection.getresponse().status == 413
    connection.close()


def test_other_methods_and_places_are_told_in_the_same_shape(addresses) -> None:
    for method, path, status in (("GET", "/v1/completions", 405), ("GET", "/nowhere", 404)):
        found, said, _ = answer(addresses["bytes"], method, path)
        assert (found, set(said["error"])) == (status, {"message", "type", "param", "code"})


def test_pages_may_load_nothing_from_elsewhere(addresses) -> None:
    _, _, got = answer(addresses["bytes"], "GET", "/")
    assert got["content-security-policy"].startswith("default-src 'none'; script-src 'self'")
    assert got["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("said", [(), (b"GET /health HTTP/1.1\r\nHost: loc",), (WHOLE, b"GET /")])
def test_who_does_not_say_what_it_wants_is_sent_away(
    models, monkeypatch: pytest.MonkeyPatch, said: tuple[bytes, ...]
) -> None:
    monkeypatch.setattr("fairway.serve.connection.HEAD_SECONDS", 0.2)
    with served(models["bytes"]) as server:
        place = urlsplit(server.address)
        with socket.create_connection((place.hostname, place.port or 0), timeout=10) as client:
            heard = b""
            for part in said:
                client.sendall(part)
                if part == WHOLE:
                    heard += client.recv(1000)
            while part := client.recv(1000):
                heard += part
        assert (b"200 OK" in heard) == (WHOLE in said)


def test_an_answer_may_take_longer_than_a_question(models, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fairway.serve.connection.HEAD_SECONDS", 0.05)
    with served(models["bytes"]) as server:
        body = completion(max_tokens=100, n=4, temperature=2, seed=1)
        status, said, _ = answer(server.address, "POST", "/v1/completions", body, JSON)
        assert (status, len(said["choices"])) == (200, 4)


def test_who_says_nothing_is_not_waited_for(models, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fairway.serve.app.BODY_SECONDS", 0.3)
    with served(models["bytes"]) as server:
        place = urlsplit(server.address)
        with socket.create_connection((place.hostname, place.port or 0), timeout=10) as client:
            head = f"POST /score HTTP/1.1\r\nHost: {place.netloc}\r\nContent-Length: 50\r\n"
            client.sendall(f"{head}Content-Type: application/json\r\n\r\n{{".encode())
            began = time.monotonic()
            assert b"408" in client.recv(1000).split(b"\r\n")[0]
            assert time.monotonic() - began < 8
