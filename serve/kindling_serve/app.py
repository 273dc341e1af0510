"""The endpoint: `/v1/models`, `/v1/chat/completions`, `/v1/completions`, `/health`, `/metrics`.

Starlette, since the chat page brings it along: one stack for both.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from kindling_api.errors import UserError, explain
from kindling_serve.access import TOKENS, AccessLog
from kindling_serve.answers import AnswerPiece, Document, stream_pieces
from kindling_serve.completions import ChatExchange, Exchange, TextExchange
from kindling_serve.description import describe
from kindling_serve.engine import Busy, GenerationEngine, Session
from kindling_serve.errors import ApiError, refused
from kindling_serve.metrics import ServeMetrics
from kindling_serve.protocol import ChatRequest, CompletionRequest, Sampling, parse
from kindling_serve.settings import ServeSettings
from kindling_trainer.inference.generate import Generator

CLIENT_GONE = 499  # as nginx logs it; nobody reads it

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Served:
    """A model under its name, with the engine that continues its texts."""

    generator: Generator
    settings: ServeSettings
    engine: GenerationEngine


def build_app(models: Sequence[Served]) -> Starlette:
    """The endpoint as an ASGI application; the engines run as long as it does.

    Args:
        models: the first is the one that requests without a name mean, and its settings are the endpoint's.
    """
    settings = models[0].settings
    endpoint = _Endpoint(models)

    @asynccontextmanager
    async def running(_: Starlette) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for each in models:
                await stack.enter_async_context(each.engine)
            yield

    routes = [
        Route("/v1/models", endpoint.guarded(endpoint.models)),
        Route("/v1/models/{name:path}", endpoint.guarded(endpoint.model)),
        Route("/v1/chat/completions", endpoint.guarded(endpoint.chat), methods=["POST"]),
        Route("/v1/completions", endpoint.guarded(endpoint.complete), methods=["POST"]),
        Route("/openapi.json", endpoint.description),
        Route("/health", endpoint.health),
        Route("/metrics", endpoint.figures),
    ]
    handlers: dict[Any, Any] = {HTTPException: _on_http_error}
    pages = Middleware(
        CORSMiddleware, allow_origins=settings.origins, allow_methods=["GET", "POST"], allow_headers=["*"]
    )
    middleware = [Middleware(AccessLog), *([pages] if settings.origins else [])]
    return Starlette(routes=routes, middleware=middleware, exception_handlers=handlers, lifespan=running)


Handler = Callable[[Request], Awaitable[Response]]


class _Endpoint:
    def __init__(self, models: Sequence[Served]) -> None:
        self.served, self.settings = {each.settings.name: each for each in models}, models[0].settings
        self.metrics = ServeMetrics([each.engine for each in models])
        self.started = int(time.time())

    def guarded(self, handler: Handler) -> Handler:
        """Asks for the key, and turns what goes wrong into an answer."""

        async def answer(request: Request) -> Response:
            try:
                self._check_key(request)
                response = await handler(request)
            except ApiError as error:
                response = _refusal(error)
            except UserError as error:
                response = _refusal(refused(error))
            except Busy:
                message = "All slots are taken and the line is full; try again later."
                response = _refusal(ApiError(429, message, code="rate_limit_exceeded"))
                response.headers["Retry-After"] = "1"
            except ClientDisconnect:
                response = Response(status_code=CLIENT_GONE)
            except Exception:
                log.exception("%s failed", request.url.path)
                response = _refusal(ApiError(500, "The server failed; its log says why."))
            route = request.scope["route"].path
            self.metrics.requests.labels(route, str(response.status_code)).inc()
            return response

        return answer

    async def models(self, _: Request) -> Response:
        return JSONResponse({"object": "list", "data": [self._description(each) for each in self.served.values()]})

    async def model(self, request: Request) -> Response:
        return JSONResponse(self._description(self._model(request.path_params["name"])))

    async def chat(self, request: Request) -> Response:
        asked = parse(ChatRequest, await self._body(request))
        model = self._model(asked.model)  # below, a long text takes long
        exchange = await asyncio.to_thread(ChatExchange, asked, model.generator, model.settings)
        return await self._answer(request, asked, exchange, model)

    async def complete(self, request: Request) -> Response:
        asked = parse(CompletionRequest, await self._body(request))
        model = self._model(asked.model)
        exchange = await asyncio.to_thread(TextExchange, asked, model.generator, model.settings)
        return await self._answer(request, asked, exchange, model)

    async def description(self, _: Request) -> Response:
        return JSONResponse(describe(list(self.served)))

    async def health(self, _: Request) -> Response:
        alive = all(each.engine.is_alive for each in self.served.values())
        return JSONResponse({"status": "ok" if alive else "failed"}, 200 if alive else 503)

    async def figures(self, _: Request) -> Response:
        return Response(generate_latest(self.metrics.registry), media_type=CONTENT_TYPE_LATEST)

    async def _answer(self, request: Request, asked: Sampling, exchange: Exchange, model: Served) -> Response:
        session = model.engine.submit(exchange.tasks)
        self.metrics.prompt_tokens.inc(exchange.prompt_tokens)
        counts = {"promptTokens": exchange.prompt_tokens, "tokens": 0}
        setattr(request.state, TOKENS, counts)
        tokenizer = model.generator.tokenizer
        pieces = self._counted(stream_pieces(session, tokenizer, asked.stops(), exchange.texts), counts)
        if asked.stream:
            return _Stream(session, _events(exchange.pieces(pieces)))
        with session:
            return JSONResponse(await _unless_gone(request, exchange.whole(pieces)))

    async def _counted(self, pieces: AsyncIterator[AnswerPiece], counts: dict[str, int]) -> AsyncIterator[AnswerPiece]:
        start, is_first = time.monotonic(), True
        async for one in pieces:
            if is_first:
                self.metrics.first_token.observe(time.monotonic() - start)
                is_first = False
            self.metrics.tokens.inc(one.chosen is not None)
            counts["tokens"] += one.chosen is not None
            yield one
        self.metrics.duration.observe(time.monotonic() - start)

    async def _body(self, request: Request) -> bytes:
        """The body, of the kind that no web page can send to this machine without being asked first, unless a key keeps
        it out. Of one that is too large no more than is allowed is ever held; the rest is read all the same, for
        a client that is cut off while it writes would not see the answer."""
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if self.settings.api_key is None and kind != "application/json" and not kind.endswith("+json"):
            found, allowed = kind or "none", "application/json"
            message = explain("Content-Type", found=found, allowed=allowed, remedy="send it with the request")
            raise ApiError(415, message, param="Content-Type")
        chunks, size = [], 0
        try:
            async with asyncio.timeout(self.settings.client_timeout):
                async for chunk in request.stream():
                    size += len(chunk)
                    if size <= self.settings.body_bytes:
                        chunks.append(chunk)
                    else:
                        chunks.clear()
        except TimeoutError as error:
            raise ApiError(
                408, f"The request took more than {self.settings.client_timeout:.0f} seconds to arrive."
            ) from error
        if size > self.settings.body_bytes:
            raise ApiError(413, f"The request has {size} bytes; at most {self.settings.body_bytes} are allowed.")
        return b"".join(chunks)

    def _check_key(self, request: Request) -> None:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if self.settings.api_key is None:
            return
        key = os.fsencode(self.settings.api_key)
        sent = given.strip(" \t").encode("latin-1")  # as Starlette reads headers: these are the bytes that came
        also = sent.decode("latin-1").encode()  # from a client that writes headers in Latin-1
        if scheme.lower() == "bearer" and (hmac.compare_digest(sent, key) | hmac.compare_digest(also, key)):
            return
        what = "Wrong API key." if given else "No API key."
        raise ApiError(401, f"{what} Send it as `Authorization: Bearer KEY`.", code="invalid_api_key")

    def _model(self, name: str | None) -> Served:
        found = self.served.get(self.settings.name if name is None else name)
        if found is None:
            there = ", ".join(f"`{each}`" for each in self.served)
            message = f"The model `{name}` does not exist here; there is {there}."
            raise ApiError(404, message, code="model_not_found", param="model")
        return found

    def _description(self, model: Served) -> Document:
        name, context = model.settings.name, model.generator.model.shape.context
        head = {"id": name, "object": "model", "created": self.started, "owned_by": "kindling"}
        return {**head, "max_model_len": context}


class _Stream(StreamingResponse):
    """Server-sent events; when they end, or nobody listens any more, the session's slots are free."""

    def __init__(self, session: Session, events: AsyncIterator[str]) -> None:
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        super().__init__(events, media_type="text/event-stream", headers=headers)
        self._session = session

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._session:
            await super().__call__(scope, receive, send)


async def _events(pieces: AsyncIterator[Document]) -> AsyncIterator[str]:
    try:
        async for piece in pieces:
            yield f"data: {json.dumps(piece, ensure_ascii=False)}\n\n"
    except ApiError as error:
        yield f"data: {json.dumps(error.body())}\n\n"
    yield "data: [DONE]\n\n"


async def _unless_gone(request: Request, answer: Awaitable[Document]) -> Document:
    """The answer, unless the client hangs up before.

    Raises:
        ClientDisconnect: it did.
    """
    answering = asyncio.ensure_future(answer)
    leaving = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not answering.done():
            raise ClientDisconnect
        return answering.result()
    finally:
        answering.cancel()
        leaving.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _on_http_error(_: Request, error: HTTPException) -> Response:
    return _refusal(ApiError(error.status_code, f"{error.detail}."))


def _refusal(error: ApiError) -> JSONResponse:
    return JSONResponse(error.body(), error.status)
