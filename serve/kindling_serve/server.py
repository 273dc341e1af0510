"""One process that serves one model, with other adapters under other names, until it is asked to end."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

import uvicorn
from starlette.applications import Starlette

from kindling_api.errors import SpecError, explain
from kindling_serve.app import Served, build_app
from kindling_serve.engine import GenerationEngine
from kindling_serve.settings import ServeSettings
from kindling_trainer.inference.generate import Generator

END_SECONDS = 20
"""What answers that are being given may still take when the server is asked to end."""


def listen_at(host: str, port: int, client_timeout: float) -> socket.socket:
    """A socket that takes connections; one whose client takes nothing for so many seconds is closed by the kernel.

    Raises:
        SpecError: the address is taken or is not this machine's.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.create_server((host, port), family=family, backlog=1024)
    except OSError as error:
        found = str(error.strerror).partition(" (")[0]
        allowed, remedy = "a free port of this machine", "choose another --port, or 0 for any"
        raise SpecError(explain(f"{host}:{port}", found=found, allowed=allowed, remedy=remedy)) from error
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux; connections inherit it
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(client_timeout * 1000))
    return listener


def serve(
    generator: Generator,
    settings: ServeSettings,
    listener: socket.socket,
    adapted: Mapping[str, Generator] | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM; then answers that are being given are finished, and nobody new is let in.

    Args:
        adapted: further models, by their names.
    """
    config = uvicorn.Config(
        application(generator, settings, adapted),
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=END_SECONDS,
    )
    _Server(config).run(sockets=[listener])


class _Server(uvicorn.Server):
    """Ends well when it is asked to end; uvicorn's own sends itself the signal again afterwards."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def application(
    generator: Generator, settings: ServeSettings, adapted: Mapping[str, Generator] | None = None
) -> Starlette:
    """Endpoint and page as one ASGI application; the page is of the model that the settings name."""
    models = [_served(generator, settings)]
    models += [_served(each, replace(settings, name=name)) for name, each in (adapted or {}).items()]
    app = build_app(models)
    if settings.page:
        from kindling_serve.page import mount_page  # Gradio takes seconds to load

        mount_page(app, generator, settings, models[0].engine)
    return app


def _served(generator: Generator, settings: ServeSettings) -> Served:
    engine = GenerationEngine(
        generator.model, generator.vocab_size, settings.slots, settings.line, settings.prefix_bytes
    )
    return Served(generator, settings, engine)
