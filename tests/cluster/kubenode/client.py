"""What a test does with a cluster, whoever made it: kubectl, and waiting."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml

from kubenode.places import TOOLS
from kubenode.processes import ClusterError, run

Object = dict[str, Any]
Found = TypeVar("Found")

RESTRICTED = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn", "audit")}


@dataclass(frozen=True)
class Cluster:
    """A Kubernetes cluster, as its administrator sees it."""

    kubeconfig: Path

    def kubectl(self, *command: str, standard_input: str | None = None, check: bool = True) -> str:
        """What kubectl says.

        Raises:
            ClusterError: it failed, with what it said on standard error.
        """
        return self.run_kubectl(*command, standard_input=standard_input, check=check).stdout

    def run_kubectl(
        self, *command: str, standard_input: str | None = None, check: bool = False
    ) -> subprocess.CompletedProcess[str]:
        """As `kubectl`, with the exit code and what it said on standard error."""
        words = (program("kubectl"), f"--kubeconfig={self.kubeconfig}", *command)
        return run(*words, standard_input=standard_input, check=check)

    def apply(self, *objects: Object | str | Path, namespace: str | None = None) -> None:
        """Apply objects, YAML texts or files, server-side, in this order.

        Raises:
            ClusterError: the API server refused one, with its reason.
        """
        where = ("--namespace", namespace) if namespace else ()
        for given in objects:
            text = given.read_text() if isinstance(given, Path) else given
            manifest = text if isinstance(text, str) else yaml.safe_dump(text)
            self.kubectl("apply", "--server-side", *where, "-f", "-", standard_input=manifest)

    def get(self, kind: str, name: str, namespace: str = "default") -> Object | None:
        """An object; None: there is none.

        Raises:
            ClusterError: the API server does not answer, or does not know the kind.
        """
        text = self.kubectl("get", kind, name, "-n", namespace, "-o", "json", "--ignore-not-found")
        return json.loads(text) if text else None

    def find(self, kind: str, namespace: str = "default", labels: str = "") -> list[Object]:
        """The objects of a kind, with labels as in `app=minio,tier=store`."""
        text = self.kubectl("get", kind, "-n", namespace, "-o", "json", *(("-l", labels) if labels else ()))
        found: list[Object] = json.loads(text)["items"]
        return found

    def delete(self, kind: str, name: str, namespace: str = "default", *options: str) -> None:
        """Delete an object and wait until it is gone; nothing happens if there is none."""
        self.kubectl("delete", kind, name, "-n", namespace, "--ignore-not-found", *options)

    def logs(self, pod: str, namespace: str = "default", *options: str) -> str:
        """What a pod, or `job/name`, printed so far."""
        return self.kubectl("logs", pod, "-n", namespace, *options)

    def wait_for_condition(
        self,
        kind: str,
        name: str,
        condition: str,
        namespace: str = "default",
        seconds: float = 60,
        status: str = "True",
    ) -> Object:
        """The object, once a condition has a status.

        Raises:
            AssertionError: it is not so in time; the message has what the object says instead.
        """

        def there() -> Object | None:
            found = self.get(kind, name, namespace)
            conditions = (found or {}).get("status", {}).get("conditions", [])
            met = any(each["type"] == condition and each["status"] == status for each in conditions)
            return found if met else None

        explanation = lambda: self.kubectl("describe", kind, name, "-n", namespace, check=False)  # noqa: E731
        return wait_until(f"{kind}/{name} is {condition}={status}", there, seconds, explanation)

    @contextmanager
    def namespace(self, prefix: str = "test") -> Iterator[str]:
        """A new namespace in which Pod Security `restricted` is enforced; it is deleted without waiting."""
        name = f"{prefix}-{uuid.uuid4().hex[:6]}"
        self.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": RESTRICTED}})
        try:
            yield name
        finally:
            self.kubectl("delete", "namespace", name, "--wait=false", check=False)


def wait_until(
    what: str,
    ask: Callable[[], Found | None],
    seconds: float,
    explanation: Callable[[], str] = str,
    every: float = 0.25,
) -> Found:
    """The first answer that is true; an API server that is away for a moment is asked again.

    Raises:
        AssertionError: there is none in time.
    """
    deadline = time.monotonic() + seconds
    problem = ""
    while True:
        try:
            if found := ask():
                return found
            problem = ""
        except ClusterError as error:
            problem = str(error)
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:.0f} s: {what}\n{problem}\n{explanation()}")
        time.sleep(every)


def program(name: str) -> Path | str:
    """Of the tools that were built, or else of the machine."""
    return TOOLS / name if (TOOLS / name).exists() else shutil.which(name) or name
