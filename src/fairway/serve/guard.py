"""Who may ask: checked of every request, before anything of it is read."""

import hmac
import re
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from fairway.serve.config import ServeConfig
from fairway.serve.errors import ApiError

OPEN = re.compile(r"/|/health|/playground\.(css|js)")  # hold nothing of anybody's: no token needed
PAGE_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


class Guard:
    """Middleware: refuses what does not call this server by its name, comes from another site's
    page, or shows no token where one is needed; gives every answer the headers of a careful page.
    """

    def __init__(self, app: ASGIApp, config: ServeConfig, token: str | None) -> None:
        self.app, self.config = app, config
        self.token = None if token is None else token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_guarded(message) -> None:
            if message["type"] == "http.response.start":
                extra = [(k.encode(), v.encode()) for k, v in PAGE_HEADERS.items()]
                message = {**message, "headers": [*message["headers"], *extra]}
            await send(message)

        try:
            self._check(scope["method"], scope["path"], Headers(scope=scope))
        except ApiError as error:
            await error.response()(scope, receive, send_guarded)
            return
        await self.app(scope, receive, send_guarded)

    def _check(self, method: str, path: str, headers: Headers) -> None:
        host = headers.get("host", "")
        if self.config.hosts is not None and _name(f"//{host}") not in self.config.hosts:
            raise ApiError(
                421, f"this server is not called {host!r:.80}; --allowed-hosts names more"
            )
        origin = headers.get("origin")
        if origin is not None and not _is_page_of(origin, host):
            raise ApiError(403, f"pages of {origin!r:.80} may not ask this server")
        if self.token is not None and not OPEN.fullmatch(path):
            shown = headers.get("authorization", "").removeprefix("Bearer ")
            if not hmac.compare_digest(shown.encode("utf-8", "replace"), self.token):
                raise ApiError(
                    401,
                    "this server asks for its token: Authorization: Bearer TOKEN",
                    code="invalid_api_key",
                    headers={"WWW-Authenticate": "Bearer"},
                )
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if method == "POST" and kind != "application/json":
            raise ApiError(415, "send JSON, and say so: Content-Type: application/json")


def _name(host: str) -> str | None:
    """Of a Host header, without its port; None where it is none."""
    try:
        return urlsplit(host).hostname
    except ValueError:
        return None


def _is_page_of(origin: str, host: str) -> bool:
    try:
        return urlsplit(origin).netloc.lower() == host.lower()
    except ValueError:
        return False


async def read_body(request: Request, most: int) -> bytes:
    """ApiError where it is, or says that it is, larger than `most` bytes."""
    said = request.headers.get("content-length", "0")
    body = bytearray()
    too_large = ApiError(413, f"a request may have {most:,} bytes", code="request_too_large")
    if said.isdecimal() and int(said) > most:
        raise too_large
    async for part in request.stream():
        body += part
        if len(body) > most:
            raise too_large
    return bytes(body)
