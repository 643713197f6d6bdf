"""The routes: OpenAI's completions and models, a text's bits, and the page that shows them."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from fairway.artifact.loaded_model import LoadedModel
from fairway.serve.answers import Answer
from fairway.serve.colours import score_text
from fairway.serve.completion import Piece, complete
from fairway.serve.config import ServeConfig, require_token
from fairway.serve.errors import ApiError
from fairway.serve.guard import Guard, read_body
from fairway.serve.reading import TextReader, windows_of
from fairway.serve.request import parse_json_body, parse_request
from fairway.serve.worker import Worker

PAGE = {
    "/": ("playground.html", "text/html"),
    "/playground.css": ("playground.css", "text/css"),
    "/playground.js": ("playground.js", "text/javascript"),
}
BODY_SECONDS = 20.0  # for a request to arrive


class Service:
    """A model, and what it answers. One thread has the model to itself (`worker.py`)."""

    def __init__(self, loaded: LoadedModel, config: ServeConfig) -> None:
        self.loaded, self.config = loaded, config
        self.reader = TextReader(loaded, *windows_of(loaded))
        self.worker = Worker(active=config.active, waiting=config.waiting, seconds=config.seconds)
        name = config.name or (loaded.path.stem if loaded.path else "model")
        self.name = name.encode("utf-8", "backslashreplace").decode()  # of files, not all is UTF-8
        self.started = int(time.time())

    async def completions(self, request: Request) -> Response:
        fields = await self._json(request)
        asked = parse_request(fields, self.config, self.loaded.tokenizer.vocab_size)
        self._require_model(asked.model)
        answer = Answer(asked, self.loaded.tokenizer, self.loaded.sha256[:16])
        steps = complete(self.loaded, self.reader, asked)
        if not asked.stream:
            return JSONResponse(await self._unless_left(request, self._whole(answer, steps)))
        events = self._events(answer, steps)
        first = await anext(events)  # so that who is sent away is told by the status
        return StreamingResponse(_sent(first, events), media_type="text/event-stream")

    async def _whole(self, answer: Answer, steps: Iterator[Piece]) -> dict[str, Any]:
        async with self.worker.answers(steps) as pieces:
            return await answer.whole(pieces)

    async def _events(self, answer: Answer, steps: Iterator[Piece]) -> AsyncIterator[str]:
        async with self.worker.answers(steps) as pieces:
            async for event in answer.events(pieces):
                yield json.dumps(event)
        yield "[DONE]"

    async def score(self, request: Request) -> Response:
        fields = await self._json(request)
        text = fields.get("text")
        if not isinstance(text, str) or fields.keys() != {"text"}:
            raise ApiError(400, 'give a text, as in {"text": "some text"}', param="text")
        steps = score_text(self.loaded, self.reader, text)

        async def last() -> dict[str, Any]:
            found: dict[str, Any] = {}
            async with self.worker.answers(steps) as states:
                async for state in states:
                    found = state or found
            return found

        return JSONResponse(await self._unless_left(request, last()))

    async def models(self, request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [self._described()]})

    async def model(self, request: Request) -> Response:
        self._require_model(request.path_params["name"])
        return JSONResponse(self._described())

    async def health(self, request: Request) -> Response:
        return JSONResponse({"status": "ok", "model": self.name} | self.worker.load)

    async def page(self, request: Request) -> Response:
        name, kind = PAGE[request.url.path]
        return Response((files("fairway.serve") / name).read_bytes(), media_type=kind)

    def _described(self) -> dict[str, Any]:
        return {
            "id": self.name,
            "object": "model",
            "created": self.started,
            "owned_by": "fairway",
            "context": self.loaded.model.config.train_context,
            "sha256": self.loaded.sha256,
        }

    def _require_model(self, name: str) -> None:
        if name != self.name:
            said = f"no model {name!r:.80} here; there is {self.name!r}"
            raise ApiError(404, said, param="model", code="model_not_found")

    async def _json(self, request: Request) -> dict[str, Any]:
        try:
            async with asyncio.timeout(BODY_SECONDS):
                body = await read_body(request, self.config.max_body_bytes)
        except TimeoutError:
            raise ApiError(408, f"the request did not arrive in {BODY_SECONDS:g} s") from None
        return parse_json_body(body)

    async def _unless_left(self, request: Request, work) -> Any:
        """The outcome of `work`, which is given up where nobody waits for it any more."""
        task = asyncio.ensure_future(work)
        left = asyncio.ensure_future(_disconnected(request))
        try:
            await asyncio.wait({task, left}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise ClientDisconnect()
            return task.result()
        finally:
            for each in (task, left):
                each.cancel()
            await asyncio.gather(task, left, return_exceptions=True)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _sent(first: str, events: AsyncIterator[str]) -> AsyncIterator[str]:
    """Server-sent events; what goes wrong on the way is the last of them."""
    try:
        yield f"data: {first}\n\n"
        async for event in events:
            yield f"data: {event}\n\n"
    except ApiError as error:
        yield f"data: {json.dumps(error.to_json())}\n\n"
    except Exception:
        error = ApiError(500, "this should not have happened; the server's log says more")
        yield f"data: {json.dumps(error.to_json())}\n\n"
        raise
    finally:
        await events.aclose()  # type: ignore[attr-defined]


def make_app(loaded: LoadedModel, config: ServeConfig, token: str | None = None) -> Starlette:
    """ValueError where the config needs a token that is missing or too short."""
    require_token(config, token)
    service = Service(loaded, config)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        service.worker.start()
        yield
        service.worker.stop()

    app = Starlette(
        routes=[
            *(Route(path, service.page) for path in PAGE),
            Route("/health", service.health),
            Route("/v1/models", service.models),
            Route("/v1/models/{name:path}", service.model),
            Route("/v1/completions", service.completions, methods=["POST"]),
            Route("/score", service.score, methods=["POST"]),
        ],
        lifespan=lifespan,
        exception_handlers={
            ApiError: _api_error, HTTPException: _http_error, ClientDisconnect: _left,
            Exception: _failed,
        },
    )  # fmt: skip
    app.state.name = service.name
    app.add_middleware(Guard, config=config, token=token)
    return app


async def _api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return error.response()


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    said = f"{request.method} {request.url.path!r:.80}: {error.detail}"
    return ApiError(error.status_code, said, headers=dict(error.headers or {})).response()


async def _left(request: Request, error: Exception) -> Response:
    return Response(status_code=499)  # nobody reads it


async def _failed(request: Request, error: Exception) -> Response:
    return ApiError(500, "this should not have happened; the server's log says more").response()
