"""Only an API server: etcd and kube-apiserver on this host, at free ports, for whatever talks to no more than that.

Needs neither root nor nodes. Several can run side by side, and beside a whole cluster.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import subprocess
import time
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Self

from kubenode.places import TOOLS
from kubenode.processes import ClusterError, run

START_SECONDS = 120
"""On a machine that is busy with other things."""

USERS = {"admin": "system:masters", "operator": ""}
"""Users, each with its own name for a token, and their groups; only the first may do anything from the start."""


class ApiServer:
    """An API server that lives as long as the `with` block."""

    def __init__(self, folder: Path) -> None:
        """`folder` is to hold all its files; it need not exist."""
        self.folder = folder
        self._etcd_port, self._port = free_port(), free_port()
        self.url = f"https://127.0.0.1:{self._port}"
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    @staticmethod
    def missing() -> str | None:
        """Why there can be none on this machine; None: there can."""
        wanted = [name for name in ("etcd", "kube-apiserver") if not (TOOLS / name).exists()]
        return f"{' and '.join(wanted)} are not in {TOOLS}: `make cluster` builds them" if wanted else None

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        lines = [f'{user},{user},{user},"{groups}"\n' for user, groups in USERS.items()]
        (self.folder / "tokens.csv").write_text("".join(lines))
        run("openssl", "genrsa", "-out", self.folder / "accounts.key", "2048")
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for name in ("kube-apiserver", "etcd"):
            self.kill(name)

    def start(self) -> None:
        """Start what does not run, and wait until it answers.

        Raises:
            ClusterError: it does not in time.
        """
        self._spawn("etcd", *self._etcd())
        self._spawn("kube-apiserver", *self._api_server())
        deadline = time.monotonic() + START_SECONDS
        while not self._is_ready():
            if time.monotonic() > deadline or self._processes["kube-apiserver"].poll() is not None:
                raise ClusterError(f"the API server does not start; see {self.folder}/kube-apiserver.log")
            time.sleep(0.1)

    def kill(self, name: str) -> None:
        """End `etcd` or `kube-apiserver` without warning."""
        process = self._processes.pop(name, None)
        if process is not None:
            process.send_signal(signal.SIGKILL)
            process.wait()

    def kubeconfig(self, user: str = "admin") -> Path:
        """The file that lets `user` in."""
        path = self.folder / f"{user}.kubeconfig"
        cluster = {"server": self.url, "certificate-authority": str(self.folder / "certificates" / "apiserver.crt")}
        path.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "current-context": "test",
                    "clusters": [{"name": "test", "cluster": cluster}],
                    "users": [{"name": user, "user": {"token": user}}],
                    "contexts": [{"name": "test", "context": {"cluster": "test", "user": user}}],
                }
            )
        )
        return path

    def _spawn(self, name: str, *options: str) -> None:
        if name in self._processes:
            return
        command = [str(TOOLS / name), *options]
        kept = {key: value for key, value in os.environ.items() if key != "KINDLING_TESTS"}  # outlives a test
        with (self.folder / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=kept
            )

    def _etcd(self) -> tuple[str, ...]:
        address = f"http://127.0.0.1:{self._etcd_port}"
        return (
            *("--data-dir", str(self.folder / "etcd"), "--unsafe-no-fsync"),
            *(f"--listen-client-urls={address}", f"--advertise-client-urls={address}"),
            "--listen-peer-urls=http://127.0.0.1:0",
        )

    def _api_server(self) -> tuple[str, ...]:
        key = self.folder / "accounts.key"
        return (
            *(f"--etcd-servers=http://127.0.0.1:{self._etcd_port}", f"--secure-port={self._port}"),
            *("--bind-address=127.0.0.1", f"--cert-dir={self.folder}/certificates"),
            *(f"--token-auth-file={self.folder}/tokens.csv", "--authorization-mode=RBAC"),
            *("--service-account-issuer=https://kubernetes.default.svc", f"--service-account-key-file={key}"),
            *(f"--service-account-signing-key-file={key}", "--disable-admission-plugins=ServiceAccount"),
            "--service-cluster-ip-range=10.0.0.0/16",
        )

    def _is_ready(self) -> bool:
        request = urllib.request.Request(f"{self.url}/readyz", headers={"Authorization": "Bearer admin"})
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        try:
            with urllib.request.urlopen(request, context=context, timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
