"""Servers whose certificates are of an authority of the installation's own, as pods are told of it."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hub_server import Hub
from proxies import Proxy

READS = """
import sys
from kindling_storage import open_store
bucket, endpoint, commit = sys.argv[1:]
store = open_store(f"{bucket}/certified", endpoint=endpoint)
store.put("a", b"kept")
print(store.get("a").decode(), open_store(f"hf://me/tiny@{commit}").get("config.json").decode())
"""


class Certified(Proxy):
    """Passes connections on to a server without TLS."""

    scheme, host = "https", "localhost"

    def __init__(self, endpoint: str, certificate: Path) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate, certificate.with_suffix(".key"))
        super().__init__(endpoint)

    def receive(self, client: socket.socket) -> socket.socket:
        return self._context.wrap_socket(client, server_side=True)


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
    environment = {**os.environ, **given, "HF_ENDPOINT": mirror.endpoint, "HF_HOME": str(tmp_path / "hub")}
    command = [sys.executable, "-c", READS, bucket.uri, store.endpoint, commit]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert (done.stdout, done.returncode) == ("kept {}\n", 0), done.stderr
    store.close()
    mirror.close()
