"""What a run says of itself, over HTTP, for as long as its process lives.

`GET /progress` gives the progress document, `/metrics` its figures for Prometheus, `/healthz` a sign of life. Nothing
is taken in, and nothing else is given out.
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from kindling_api.base import Status
from kindling_api.errors import UserError, explain
from kindling_api.v1alpha1.runfile import Progress, RunFile
from kindling_runtime.dual_stack import DualStackServer
from kindling_runtime.progress import to_bytes, with_outage

CLIENT_SECONDS = 10.0
"""How long a client may take to send its request or to take the answer."""
POLL_SECONDS = 0.1
"""How long the end of the service may be waited for."""


@contextmanager
def serve_status(port: int | None, run: RunFile, latest: Callable[[], Progress]) -> Iterator[int | None]:
    """Serve what `latest` returns on `port`, on all addresses, while the block runs; without a port, serve nothing.

    `latest` is called from other threads, once a request; whose it is, and that a store is waited for, is added to what
    it says. The port that is served on is given to the block: for 0 it is a free one.

    Raises:
        UserError: the port cannot be had.
    """
    if port is None:
        yield None
        return
    with _listening(port, run, latest) as server:
        thread = threading.Thread(
            target=server.serve_forever, args=(POLL_SECONDS,), name="kindling-progress", daemon=True
        )
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def figures(run: RunFile, progress: Progress) -> str:
    """All numbers of a progress document in Prometheus' text format, as `kindling_training_loss{…} 2.5`.

    The names are those of the document's fields, and so are the descriptions.
    """
    labels = {"kind": run.kind, "namespace": run.namespace, "name": run.name, "attempt": str(run.attempt)}
    labels |= {"uid": run.uid} if run.uid is not None else {}
    labelled = ",".join(f"{label}={json.dumps(value, ensure_ascii=False)}" for label, value in labels.items())
    lines = [
        "# HELP kindling_up Whether the process lives.",
        "# TYPE kindling_up gauge",
        f"kindling_up{{{labelled}}} 1",
    ]
    for part in ("dataset", "training", "checkpoint"):
        for name, description, value in _numbers(getattr(progress, part)):
            metric = f"kindling_{part}_{name}"
            lines += [f"# HELP {metric} {description}", f"# TYPE {metric} gauge", f"{metric}{{{labelled}}} {value}"]
    return "\n".join(lines) + "\n"


def _numbers(part: Status | None) -> Iterator[tuple[str, str, float]]:
    """Name, description and value of each finite number in a part of the document."""
    for name, field in type(part).model_fields.items() if part is not None else ():
        value = getattr(part, name)
        if isinstance(value, int | float) and math.isfinite(value):
            yield name, " ".join((field.description or name).split()), value


def _listening(port: int, run: RunFile, latest: Callable[[], Progress]) -> _Server:
    whose = {"uid": run.uid, "attempt": run.attempt}
    answers: dict[str, tuple[str, Callable[[], bytes]]] = {
        "/progress": ("application/json", lambda: to_bytes(with_outage(latest()).model_copy(update=whose))),
        "/metrics": ("text/plain; version=0.0.4; charset=utf-8", lambda: figures(run, latest()).encode()),
        "/healthz": ("text/plain; charset=utf-8", lambda: b"ok\n"),
    }
    try:
        return _Server(port, answers)
    except OSError as error:
        found, allowed = f"{(error.strerror or 'no such port').lower()}", "a port that is free, or 0 for any"
        raise UserError(explain(f"--serve {port}", found=found, allowed=allowed, remedy="name another")) from error


class _Server(DualStackServer, ThreadingHTTPServer):
    def __init__(self, port: int, answers: dict[str, tuple[str, Callable[[], bytes]]]) -> None:
        self.answers = answers
        super().__init__(("", port), _Handler)

    def server_bind(self) -> None:
        super().server_bind()
        self.server_name, self.server_port = "", self.server_address[1]


class _Handler(BaseHTTPRequestHandler):
    timeout = CLIENT_SECONDS
    server_version, sys_version = "kindling", ""

    def do_GET(self) -> None:
        assert isinstance(self.server, _Server)
        found = self.server.answers.get(self.path)
        if found is None:
            self.send_error(HTTPStatus.NOT_FOUND, explain="There are /progress, /metrics and /healthz")
            return
        kind, answer = found
        body = answer()
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Requests come every few seconds, and are not worth a line each."""
