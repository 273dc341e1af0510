"""Servers whose certificates are of an authority of the installation's own, as pods are told of it."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hub_server import Hub

READS = """
import sys
from kindling_storage import open_store
bucket, endpoint, commit = sys.argv[1:]
store = open_store(f"{bucket}/certified", endpoint=endpoint)
store.put("a", b"kept")
print(store.get("a").decode(), open_store(f"hf://me/tiny@{commit}").get("config.json").decode())
"""


class Certified:
    """Passes connections on to a server without TLS."""

    def __init__(self, address: str, certificate: Path) -> None:
        self._server = address.removeprefix("http://").split(":")
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate, certificate.with_suffix(".key"))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"https://localhost:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._pass_on, args=(client,), daemon=True).start()

    def _pass_on(self, client: socket.socket) -> None:
        try:
            inner = self._context.wrap_socket(client, server_side=True)
        except OSError:
            return
        host, port = self._server
        server = socket.create_connection((host, int(port)))
        for source, target in ((inner, server), (server, inner)):
            threading.Thread(target=_copy, args=(source, target), daemon=True).start()


def _copy(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """For localhost, and its own authority; the key lies beside it."""
    path = tmp_path / "ca.crt"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
    ]
    command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run(
        [*command, "-out", path, "-keyout", path.with_suffix(".key")], check=True, capture_output=True, timeout=60
    )
    return path


@pytest.fixture
def hub() -> Iterator[Hub]:
    server = Hub()
    yield server
    server.close()


@pytest.mark.slow
def test_store_and_hub_are_known_by_the_authorities_of_the_installation(
    certificate: Path, hub: Hub, new_bucket: Callable, tmp_path: Path
) -> None:
    bucket = new_bucket("moto")
    commit = hub.model("me/tiny", {"config.json": b"{}"}).branches["main"]
    store, mirror = Certified(bucket.endpoint, certificate), Certified(hub.address, certificate)
    given = {"AWS_CA_BUNDLE": str(certificate), "SSL_CERT_FILE": str(certificate)}
    environment = {**os.environ, **given, "HF_ENDPOINT": mirror.address, "HF_HOME": str(tmp_path / "hub")}
    command = [sys.executable, "-c", READS, bucket.uri, store.address, commit]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert (done.stdout, done.returncode) == ("kept {}\n", 0), done.stderr
    store.close()
    mirror.close()
