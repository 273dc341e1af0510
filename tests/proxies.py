"""Proxies before a server, for what may happen to connections on the way."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress


class Proxy:
    """Passes connections on to a server."""

    scheme = "http"
    host = "127.0.0.1"

    def __init__(self, endpoint: str) -> None:
        host, _, port = endpoint.removeprefix("http://").partition(":")
        self._server = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"{self.scheme}://{self.host}:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def receive(self, client: socket.socket) -> socket.socket:
        """The connection with a client, as it is read from and written to."""
        return client

    def passes(self, carried: int, *, answers: bool) -> bool:
        """Whether what was read last is passed on; else the connection ends.

        Args:
            carried: the bytes so far, of this direction of the connection.
            answers: whether they come from the server.
        """
        return True

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._pass_on, args=(client,), daemon=True).start()

    def _pass_on(self, client: socket.socket) -> None:
        try:
            inner = self.receive(client)
        except OSError:
            return
        server = socket.create_connection(self._server)
        threading.Thread(target=self._carry, args=(inner, server, False), daemon=True).start()
        threading.Thread(target=self._carry, args=(server, inner, True), daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket, answers: bool) -> None:
        carried = 0
        with suppress(OSError):
            while data := source.recv(1 << 16):
                carried += len(data)
                if not self.passes(carried, answers=answers):
                    break
                target.sendall(data)
        for side in (source, target):
            with suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)
