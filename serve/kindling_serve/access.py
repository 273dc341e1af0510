"""A line of the log for each request that asks for the model; nothing of what was asked or answered is in it."""

from __future__ import annotations

import logging
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kindling_api.logs import say

PREFIX = "/v1/"
"""What the routes that are told begin with; probes and the scraper ask too often."""

TOKENS = "tokens"
"""Where a handler leaves the counts of a request, in its state."""

log = logging.getLogger(__name__)


class AccessLog:
    """Middleware: method, route, status, seconds to the last byte, and the tokens read and generated."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer as the application within does."""
        began, status = time.monotonic(), 0

        async def watched(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self._app(scope, receive, watched)
        finally:
            route = getattr(scope.get("route"), "path", "")
            if route.startswith(PREFIX):
                seconds = round(time.monotonic() - began, 3)
                sentence = f"{scope['method']} {route} {status} in {seconds} s"
                facts = {"method": scope["method"], "route": route, "status": status, "seconds": seconds}
                say(log, sentence, **facts, **scope.get("state", {}).get(TOKENS, {}))
