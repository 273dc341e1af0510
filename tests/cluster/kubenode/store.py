"""The cluster's MinIO, as a test sees it."""

from __future__ import annotations

import socket
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from kubenode.client import Cluster, Object, program, wait_until

NAMESPACE = "minio"
ACCESS_KEY, SECRET_KEY = "kindling-test", "kindling-test-secret"
ENDPOINT = "http://minio.minio.svc.cluster.local:9000"
"""For pods."""


@dataclass
class Store:
    """An object store that can be stopped and started."""

    cluster: Cluster
    address: str
    """For this machine, as a URL."""
    password: str = SECRET_KEY
    """Of its key, at this moment."""

    @property
    def client(self) -> Any:
        """boto3's; it gives up soon, and tries nothing twice."""
        settings = Config(connect_timeout=3, read_timeout=10, retries={"total_max_attempts": 1})
        session = boto3.session.Session(ACCESS_KEY, self.password)
        return session.client("s3", endpoint_url=self.address, region_name="us-east-1", config=settings)

    def new_bucket(self, prefix: str = "test") -> str:
        """The name of a new, empty bucket."""
        name = f"{prefix}-{uuid.uuid4().hex[:8]}"
        self.client.create_bucket(Bucket=name)
        return name

    def names(self, bucket: str, prefix: str = "") -> list[str]:
        """The names of all objects in a bucket."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        return [entry["Key"] for page in pages for entry in page.get("Contents", [])]

    def read(self, bucket: str, name: str) -> bytes:
        """The content of an object."""
        content: bytes = self.client.get_object(Bucket=bucket, Key=name)["Body"].read()
        return content

    def secret(self, name: str, password: str | None = None) -> Object:
        """A Secret with the credentials, as pods want it, or with another password."""
        values = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": password or self.password}
        return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": values}

    def change_password(self, password: str) -> None:
        """Start it again with another one, and wait until it answers; no Secret knows of that."""
        self.password = password
        variable = f"MINIO_ROOT_PASSWORD={password}"
        self.cluster.kubectl("set", "env", "deployment/minio", "-n", NAMESPACE, variable)
        self.cluster.kubectl("rollout", "status", "deployment/minio", "-n", NAMESPACE, "--timeout=60s")
        self.wait()

    def stop(self) -> None:
        """End it, and wait until it is gone; objects stay."""
        self.cluster.kubectl("scale", "deployment/minio", "-n", NAMESPACE, "--replicas=0")
        wait_until("MinIO is gone", lambda: not self.cluster.find("pods", NAMESPACE, "app=minio"), 60)

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self.cluster.kubectl("scale", "deployment/minio", "-n", NAMESPACE, "--replicas=1")
        self.wait()

    def wait(self) -> None:
        """Until it answers."""
        wait_until("MinIO answers", self._answers, 120)

    def _answers(self) -> bool:
        try:
            self.client.list_buckets()
        except (BotoCoreError, ClientError):
            return False
        return True


@contextmanager
def forwarded(cluster: Cluster) -> Iterator[str]:
    """The address on this machine of the MinIO of a cluster whose nodes cannot be reached from here."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    command = [program("kubectl"), f"--kubeconfig={cluster.kubeconfig}", "port-forward", "-n", NAMESPACE]
    with subprocess.Popen([*command, "service/minio", f"{port}:9000"], stdout=subprocess.DEVNULL) as process:
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()
