"""The API server as the operator needs it: a few verbs, objects as dictionaries, and errors with their reason.

The official client's generated classes are left alone: they cost memory and time, and nothing here wants them.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable
from typing import Any
from urllib.parse import urlencode

import aiohttp
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.config import ConfigException, load_incluster_config, load_kube_config

from kindling_operator.world import NAMESPACE_GOES, Object, ObjectKey

PLURALS = {
    "AlignmentRun": "alignmentruns",
    "ConfigMap": "configmaps",
    "DatasetBuild": "datasetbuilds",
    "Deployment": "deployments",
    "Event": "events",
    "Job": "jobs",
    "Lease": "leases",
    "Namespace": "namespaces",
    "NetworkPolicy": "networkpolicies",
    "Pod": "pods",
    "PretrainRun": "pretrainruns",
    "RayJob": "rayjobs",
    "Service": "services",
    "Workload": "workloads",
}
"""How the API server's paths spell the kinds that the operator touches."""

REQUEST_SECONDS = 30.0
PASSING = frozenset({429, 500, 502, 503, 504})
READ_AGAIN_SECONDS = (0.2, 0.6, 1.8)
"""Between the tries of what is read, where the API server answers with an error that passes (`PASSING`). What is
written is not tried again here: whether it is still wanted, is decided anew."""
PAGE = 250
"""Objects read at once: a large list is never held as a whole."""

APPLY, MERGE, JSON = "application/apply-patch+yaml", "application/merge-patch+json", "application/json"


class ClusterError(Exception):
    """The API server refused, or could not be reached (status 0)."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason


class NotWritableError(Exception):
    """A write was about to happen without leadership; the process must end."""


FIELD_MANAGER = "kindling"
STATUS_FIELD_MANAGER = "kindling-status"
LEASE_FIELD_MANAGER = "kindling-lease"
"""Who owns what is written, as `kubectl get --show-managed-fields` tells: of objects, of statuses, of the Lease."""


class Cluster:
    """One connection pool to one API server.

    Every method raises ClusterError where the API server refuses or does not answer; methods that write raise
    NotWritableError, before anything is sent, while `may_write` says no.
    """

    def __init__(self, client: ApiClient, *, may_write: Callable[[], bool] = lambda: True) -> None:
        self._client = client
        self._may_write = may_write

    async def get(self, key: ObjectKey) -> Object | None:
        """The object, or None where there is none."""
        return await self._read(path_of(key.api_version, key.kind, key.namespace, key.name))

    async def list(
        self, api_version: str, kind: str, namespace: str = "", *, labels: str = "", fields: str = ""
    ) -> AsyncIterator[Object]:
        """All objects of a kind, in one namespace or in all, page by page; none where the kind is not installed."""
        query = {"limit": str(PAGE), "labelSelector": labels, "fieldSelector": fields}
        while True:
            page = await self._read(path_of(api_version, kind, namespace), query)
            for item in page["items"] if page else ():
                yield {"apiVersion": api_version, "kind": kind, **item}
            if not page or not (position := page["metadata"].get("continue")):
                return
            query["continue"] = position

    async def create(self, item: Object, *, manager: str) -> Object:
        """Create the object."""
        path = path_of(item["apiVersion"], item["kind"], item["metadata"]["namespace"])
        return await self._write("POST", path, item, query={"fieldManager": manager})

    async def replace(self, item: Object, *, manager: str) -> Object:
        """Put the object in the place of the one with its resourceVersion."""
        return await self._write("PUT", path_of_object(item), item, query={"fieldManager": manager})

    async def apply(self, item: Object, *, manager: str, subresource: str = "") -> Object:
        """Server-side apply: the fields of `item` become the manager's, and so what they say here."""
        path = path_of_object(item) + (f"/{subresource}" if subresource else "")
        return await self._write("PATCH", path, item, APPLY, query={"fieldManager": manager, "force": "true"})

    async def merge(self, key: ObjectKey, patch: Object, *, manager: str) -> Object:
        """Merge a patch into an object that is there."""
        path = path_of(key.api_version, key.kind, key.namespace, key.name)
        return await self._write("PATCH", path, patch, MERGE, query={"fieldManager": manager})

    async def delete(self, key: ObjectKey, *, uid: str | None = None) -> None:
        """Delete the object, and, without waiting for that, what it owns; it may be gone already.

        With `uid`, only this very object, and not another one of its name.
        """
        path = path_of(key.api_version, key.kind, key.namespace, key.name)
        options: Object = {"propagationPolicy": "Background"}
        if uid is not None:
            options["preconditions"] = {"uid": uid}
        try:
            await self._write("DELETE", path, options)
        except ClusterError as error:
            if error.status != 404:
                raise

    async def installed(self, api_version: str, kind: str) -> bool:
        """Whether the API server knows the kind."""
        found = await self._read(f"/apis/{api_version}")
        return found is not None and any(one["kind"] == kind for one in found["resources"])

    async def preferred(self, group: str) -> str | None:
        """The version of the group that the API server prefers, as in `batch/v1`; None where it knows no such group."""
        found = await self._read(f"/apis/{group}")
        return str(found["preferredVersion"]["groupVersion"]) if found is not None else None

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def _read(self, path: str, query: dict[str, str] | None = None) -> Object | None:
        """What is there; None where there is nothing."""
        pauses = iter(READ_AGAIN_SECONDS)
        while True:
            try:
                return await self._call("GET", path, None, JSON, query or {})
            except ClusterError as error:
                if error.status == 404:
                    return None
                pause = next(pauses, None)
                if error.status not in PASSING or pause is None:
                    raise
            await asyncio.sleep(pause * random.uniform(0.5, 1.5))

    async def _write(
        self, method: str, path: str, body: Object, content_type: str = JSON, *, query: dict[str, str] | None = None
    ) -> Object:
        if not self._may_write():
            raise NotWritableError(f"{method} {path} is not sent: this process does not lead (any more)")
        return await self._call(method, path, body, content_type, query or {})

    async def _call(
        self, method: str, path: str, body: Object | None, content_type: str, query: dict[str, str]
    ) -> Object:
        headers = {"Accept": JSON, "Content-Type": content_type, "User-Agent": "kindling-operator"}
        asked = urlencode({name: value for name, value in query.items() if value})
        url = f"{self._client.configuration.host}{path}{'?' if asked else ''}{asked}"
        await self._client.update_params_for_auth(headers, [], ["BearerToken"], path, method, None)
        timeout = aiohttp.ClientTimeout(total=REQUEST_SECONDS)
        try:
            answer = await self._client.call_api(method, url, headers, body, _request_timeout=timeout)
            status, data = answer.status, await answer.read()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise ClusterError(0, "Unreachable", f"{method} {path}: {error or type(error).__name__}") from error
        if status >= 400:
            raise _refused(status, data)
        result: Object = json.loads(data)
        return result


async def connect(*, may_write: Callable[[], bool] = lambda: True) -> Cluster:
    """Connect as the pod's service account, or, outside a cluster, as the kubeconfig says.

    Raises:
        kubernetes.aio.config.ConfigException: there is neither.
    """
    configuration = Configuration()
    try:
        load_incluster_config(client_configuration=configuration)
    except ConfigException:
        await load_kube_config(client_configuration=configuration)
    return Cluster(ApiClient(configuration), may_write=may_write)


def path_of(api_version: str, kind: str, namespace: str = "", name: str = "") -> str:
    """The path of an object, or, without a name, of all objects of its kind."""
    root = "/apis" if "/" in api_version else "/api"
    scope = f"/namespaces/{namespace}" if namespace else ""
    return f"{root}/{api_version}{scope}/{PLURALS[kind]}{'/' if name else ''}{name}"


def path_of_object(item: Object) -> str:
    """The path of an object that is at hand."""
    return path_of(item["apiVersion"], item["kind"], item["metadata"]["namespace"], item["metadata"]["name"])


def _refused(status: int, data: bytes) -> ClusterError:
    try:
        said: dict[str, Any] = json.loads(data)
        causes = [cause.get("reason") for cause in (said.get("details") or {}).get("causes") or ()]
        reason = NAMESPACE_GOES if NAMESPACE_GOES in causes else str(said.get("reason", ""))
        return ClusterError(status, reason, str(said.get("message", ""))[:1024])
    except (ValueError, AttributeError):
        return ClusterError(status, "", data[:256].decode(errors="replace"))
