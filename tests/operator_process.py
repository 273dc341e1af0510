"""Operators as processes, and what they are given to do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol

from kindling_operator.cluster import Cluster
from kubenode.api_server import free_port

OnCluster = Callable[[Callable[[Cluster], Awaitable[Any]]], Any]

SPEC = {
    "dataset": {"uri": "s3://bucket/dataset"},
    "model": {"preset": "llama-124m"},
    "training": {"steps": 10, "batch": {"tokens": 65536}},
}


class Serves(Protocol):
    """What an operator talks to."""

    def kubeconfig(self, user: str) -> Path:
        """The file that lets `user` in."""


class Process:
    """One operator."""

    def __init__(self, server: Serves, folder: Path, namespace: str, name: str) -> None:
        images = {"trainer": "trainer", "dataprep": "dataprep", "serve": "serve"}
        storage = {"uri": "s3://bucket/models", "credentialsSecret": "s3"}
        settings = {"images": images, "storage": storage, "namespaces": [namespace], "namespace": namespace}
        (folder / "settings.json").write_text(json.dumps(settings))
        self.port = free_port()
        self.log = folder / f"{name}.log"
        command = [sys.executable, "-m", "kindling_operator", str(folder / "settings.json"), "--port", str(self.port)]
        environment = {**os.environ, "KUBECONFIG": str(server.kubeconfig("operator")), "POD_NAME": name}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()

    def leads(self) -> bool:
        return "kindling_leader 1.0" in self.ask("metrics")

    def ask(self, what: str) -> str:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/{what}", timeout=5) as answer:
                text: str = answer.read().decode()
                return text
        except OSError:
            return ""


def wait(ready: Callable[[], bool], seconds: float, log: Path) -> float:
    began = time.monotonic()
    while not ready():
        assert time.monotonic() - began < seconds, log.read_text()[-4000:]
        time.sleep(0.1)
    return time.monotonic() - began


def apply(on_cluster: OnCluster, namespace: str, name: str) -> None:
    metadata = {"namespace": namespace, "name": name}
    run = {"apiVersion": "kindling.dev/v1alpha1", "kind": "PretrainRun", "metadata": metadata, "spec": SPEC}
    on_cluster(lambda cluster: cluster.create(run, manager="user"))


def jobs_of(on_cluster: OnCluster, namespace: str) -> list[str]:
    """The runs that have a Job, as often as they have one."""

    async def found(cluster: Cluster) -> list[str]:
        listed = cluster.list("batch/v1", "Job", namespace)
        return [job["metadata"]["labels"]["kindling.dev/name"] async for job in listed]

    names: list[str] = on_cluster(found)
    return names
