"""The server's life: bound before the model is promised, stopped when what it began is done."""

import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn

from fairway.artifact.loaded_model import LoadedModel
from fairway.serve.app import make_app
from fairway.serve.config import ServeConfig
from fairway.serve.connection import PromptConnection

MOST_CONNECTIONS = 256
GRACE_SECONDS = 10  # for answers that are on their way when the server is asked to stop


class ModelServer:
    """A model at an address that nobody else has.

    token  that every request has to show; None: none has to

    Raises ValueError where the address cannot be had, or a token is missing.
    """

    def __init__(self, loaded: LoadedModel, config: ServeConfig, token: str | None = None) -> None:
        app = make_app(loaded, config, token)
        self.name: str = app.state.name
        settings = uvicorn.Config(
            app,
            http=PromptConnection,
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            ws="none",
            limit_concurrency=MOST_CONNECTIONS,
            timeout_graceful_shutdown=GRACE_SECONDS,
        )
        self._server = _Server(settings)
        self._listener = _listening(config)
        host, port = self._listener.getsockname()[:2]
        self.address = f"http://{f'[{host}]' if ':' in host else host}:{port}"

    def run(self, started: Callable[[], None] = lambda: None) -> None:
        """Answer until SIGINT or SIGTERM comes, or `stop` is called, and then what is on its way.

        started  called once requests are welcome
        """
        self._server.told = started
        with self._listener, _signals_obeyed():
            self._server.run(sockets=[self._listener])

    def stop(self) -> None:
        """From any thread."""
        self._server.should_exit = True


class _Server(uvicorn.Server):
    def told(self) -> None: ...

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self.told()


@contextmanager
def _signals_obeyed() -> Iterator[None]:
    """uvicorn hands on the signals that it stopped for; nobody has to obey them once more."""
    if threading.current_thread() is not threading.main_thread():
        yield  # where it hears none
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda *_: None) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _listening(config: ServeConfig) -> socket.socket:
    try:
        found = socket.getaddrinfo(config.host, config.port, type=socket.SOCK_STREAM)
        family, kind, protocol, _, address = found[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(128)
        except BaseException:
            listener.close()
            raise
        return listener
    except OSError as error:
        raise ValueError(
            f"cannot listen at {config.host}, port {config.port}: {error.strerror or error}; "
            "--port 0 takes a free one"
        ) from error
