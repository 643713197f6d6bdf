"""As much of a hub as creating a repository, one commit and downloads need, on loopback."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Hub(BaseHTTPRequestHandler):
    files: dict[str, bytes]
    broken = ""  # "cut": downloads end early; "down": every answer is an error

    @property
    def address(self) -> str:
        return f"http://{self.headers['Host']}/ann/tiny"

    def log_message(self, *args: object) -> None:
        pass

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.broken == "down":
            self.answer(403, {"error": "not for you"})
        elif self.path == "/api/repos/create":
            self.answer(200, {"url": self.address, "id": "1"})
        elif "/preupload/" in self.path:
            asked = json.loads(body)["files"]
            kinds = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in asked
            ]
            self.answer(200, {"files": kinds})
        elif "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            self.answer(200, {"commitUrl": f"{self.address}/commit/1", "commitOid": "1" * 40})
        else:  # validation of the card
            self.answer(200, {"warnings": [], "errors": []})

    def do_GET(self) -> None:
        name = self.path.split("/resolve/", 1)[-1].split("/", 1)[-1].split("?")[0]
        if self.broken == "down":
            self.answer(500, {"error": "down"})
        elif "/resolve/" not in self.path:
            self.answer(200, {"id": "ann/tiny", "sha": "1" * 40, "siblings": [], "private": False})
        elif name not in self.files:
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("X-Repo-Commit", "1" * 40)
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            data = self.files[name]
            self.send_response(200)
            self.send_header("ETag", f'"{hashlib.sha1(data).hexdigest()}"')
            self.send_header("X-Repo-Commit", "1" * 40)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(data[: len(data) // 2] if self.broken == "cut" else data)
                self.close_connection = self.broken == "cut"

    do_HEAD = do_GET

    def answer(self, status: int, value: dict) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


@contextmanager
def hub(files: dict[str, bytes], broken: str = "") -> Iterator[str]:
    handler = type("Hub", (Hub,), {"files": files, "broken": broken})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
