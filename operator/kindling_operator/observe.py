"""What is seen of one document: the cache tells most of it; some Warning events are asked for, where a run is stuck."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import NamedTuple

from kindling_api.documents import Document, parse
from kindling_api.errors import SpecError
from kindling_api.references import Reference, uses
from kindling_api.resolve import Finished
from kindling_api.v1alpha1.dataset_build import DatasetBuild
from kindling_api.v1alpha1.storage import StorageSpec
from kindling_operator.cache import RAY, ObjectCache
from kindling_operator.children import key_of_object
from kindling_operator.cluster import Cluster
from kindling_operator.labels import JOB_UID, UID, attempt_of, label
from kindling_operator.owners import owned, owners
from kindling_operator.polling import Heard, Target, target_of
from kindling_operator.render.pods import RUN_FILE
from kindling_operator.settings import Settings
from kindling_operator.storages import storage_of
from kindling_operator.world import Object, Referred, World

KUEUE = "kueue.x-k8s.io"
"""Its API group."""

QUIET_SECONDS = 3.0
"""A RayJob or pod that is younger than this has nothing to complain about yet."""

STARTING_RAY = (None, "", "New", "Initializing")
"""`status.jobDeploymentStatus` of a RayJob whose cluster is not up."""

MOST_PENDING = 3
"""Pods of one run whose Warning events are read: the others say the same."""

WORKLOAD_SECONDS = 14.0
"""Between two looks at the Workload of a Job that is admitted; one that waits is looked at each time."""

CHECK_SECONDS = 10.0
"""Between two looks whether KubeRay or Kueue is installed by now."""


class _Parsed(NamedTuple):
    uid: str
    generation: int
    document: Document | None
    refusal: str


class Observer:
    """Makes Worlds."""

    def __init__(self, settings: Settings, cluster: Cluster, cache: ObjectCache, heard: Mapping[str, Heard]) -> None:
        """`heard` is what runs have said over the network, by their documents' UIDs; somebody else fills it."""
        self._settings = settings
        self._cluster = cluster
        self._cache = cache
        self._heard = heard
        self._parsed: dict[Reference, _Parsed] = {}
        self._installed: dict[str, str] = {}
        self._workloads_seen: dict[str, float] = {}
        self._checked: dict[str, float] = {}
        self.refused: dict[str, Object] = {}
        """Writes that the API server refused, by the document's UID, as if in a Warning event; `apply` fills it."""

    async def observe(self, reference: Reference) -> World | None:
        """The world of one document; None where there is no such document (any more)."""
        resource = self._cache.document(reference)
        if resource is None:
            self._forget(reference)
            return None
        now, uid = datetime.now(UTC), resource["metadata"]["uid"]
        document, refusal = self._document(reference, resource)
        jobs = owned(self._cache.children(reference, "Job"), resource)
        ray_jobs = owned(self._cache.children(reference, "RayJob"), resource)
        labelled = self._cache.children(reference, "Pod")
        pods = _pods_of(labelled, jobs, ray_jobs)
        cleanup = _cleanup(self._cache.children(reference, "Job"), resource)
        deployments = owned(self._cache.children(reference, "Deployment"), resource)
        pods_beside = _pods_beside(labelled, cleanup, deployments)
        heard = self._heard.get(uid)
        if heard and heard.attempt != (resource.get("status") or {}).get("attempt"):
            heard = None
        return World(
            now=now,
            settings=self._settings,
            resource=resource,
            document=document,
            refusal=refusal,
            references=self._references(reference, resource, document),
            jobs=jobs,
            ray_jobs=ray_jobs,
            cleanup=cleanup,
            deployments=deployments,
            pods=pods,
            pods_beside=pods_beside,
            written=await self._written(resource, document, (*jobs, *ray_jobs)),
            warnings=await self._warnings(resource, now, jobs, ray_jobs, (*pods, *pods_beside)),
            progress=heard.progress if heard else None,
            progress_at=heard.at if heard else None,
            unchanged_seconds=time.monotonic() - heard.since if heard else 0.0,
            ray_installed=not _wants_ray(document) or await self._has(RAY),
            kueue_installed=not _wants_queue(document) or await self._has(KUEUE),
            workload=await self._workload((*jobs, *ray_jobs)) if _wants_queue(document) else None,
        )

    def targets(self) -> list[Target]:
        """Whom to ask how far they are: a pod of every run that has one running."""
        found = []
        for reference, resource in self._cache.documents():
            status = resource.get("status") or {}
            if status.get("attempt") and status.get("phase") not in ("Succeeded", "Failed"):
                jobs = owned(self._cache.children(reference, "Job"), resource)
                ray_jobs = owned(self._cache.children(reference, "RayJob"), resource)
                pods = _pods_of(self._cache.children(reference, "Pod"), jobs, ray_jobs)
                found.append(target_of(reference, resource["metadata"]["uid"], status["attempt"], pods))
        return [target for target in found if target]

    def _document(self, reference: Reference, resource: Object) -> tuple[Document | None, str]:
        """The document, parsed once for each generation of it."""
        metadata = resource["metadata"]
        known = self._parsed.get(reference)
        if known is not None and known.uid != metadata["uid"]:
            self._forget(reference)
        if known is None or (known.uid, known.generation) != (metadata["uid"], metadata["generation"]):
            try:
                document = parse({**resource, "status": None})
                known = _Parsed(metadata["uid"], metadata["generation"], document, "")
            except SpecError as error:
                known = _Parsed(metadata["uid"], metadata["generation"], None, str(error))
            self._parsed[reference] = known
        return known.document, known.refusal

    def _forget(self, reference: Reference) -> None:
        """The document of this name is gone; another one may have its name."""
        if known := self._parsed.pop(reference, None):
            self.refused.pop(known.uid, None)

    def _references(
        self, reference: Reference, resource: Object, document: Document | None
    ) -> dict[Reference, Referred]:
        targets = [target for use in uses(document) for target in use.candidates] if document else []
        self._cache.refers(reference, targets)
        own = storage_of(resource.get("status") or {}, document, self._settings)
        return {
            target: self._referred(target, seen, own) for target in targets if (seen := self._cache.document(target))
        }

    def _referred(self, target: Reference, resource: Object, own: StorageSpec | None) -> Referred:
        status = resource.get("status") or {}
        phase, result = status.get("phase") or "Pending", status.get("result")
        if phase != "Succeeded" or not result:
            return Referred(phase, message=_why_failed(status))
        storage = storage_of(status, self._document(target, resource)[0], self._settings)
        return Referred(phase, Finished(result["uri"], result["digest"], storage if storage != own else None))

    async def _written(
        self, resource: Object, document: Document | None, children: Sequence[Object]
    ) -> StorageSpec | None:
        """The storage in the run file of the newest attempt: asked for only where the status tells of none."""
        known = (resource.get("status") or {}).get("storage") or (document.spec.storage if document else None)
        if known or not children:
            return None
        newest = key_of_object(max(children, key=lambda child: attempt_of(child) or 0))
        found = await self._cluster.get(replace(newest, api_version="v1", kind="ConfigMap"))
        try:
            return StorageSpec.model_validate(json.loads(owned([found or {}], resource)[0]["data"][RUN_FILE])["output"])
        except (IndexError, KeyError, ValueError):
            return None

    async def _warnings(
        self,
        resource: Object,
        now: datetime,
        jobs: Iterable[Object],
        ray_jobs: Iterable[Object],
        pods: Iterable[Object],
    ) -> tuple[Object, ...]:
        metadata = resource["metadata"]
        refused = self.refused.get(metadata["uid"])
        names = _complaining(now, ray_jobs, pods)
        pages = await asyncio.gather(*(self._events(metadata["namespace"], name) for name in names))
        known = ([refused] if refused else []) + self._cache.warnings(jobs)
        return (*known, *(event for page in pages for event in page))

    async def _events(self, namespace: str, name: str) -> list[Object]:
        fields = f"type=Warning,involvedObject.name={name}"
        return [event async for event in self._cluster.list("v1", "Event", namespace, fields=fields)]

    async def _has(self, what: str) -> bool:
        """Whether KubeRay or Kueue is installed: asked now and then until it is."""
        if what not in self._installed and time.monotonic() - self._checked.get(what, -math.inf) > CHECK_SECONDS:
            self._checked[what] = time.monotonic()
            if what == RAY:
                found = RAY if await self._cluster.installed(RAY, "RayJob") else None
            else:
                found = await self._cluster.preferred(what)
            if found is not None:
                self._installed[what] = found
        return what in self._installed

    async def _workload(self, children: Sequence[Object]) -> Object | None:
        """What Kueue made of the newest attempt's Job."""
        if KUEUE not in self._installed or not children:
            return None
        job = max(children, key=lambda child: attempt_of(child) or 0)
        uid, now = str(job["metadata"]["uid"]), time.monotonic()
        waits = bool(job.get("spec", {}).get("suspend"))
        if not waits and now - self._workloads_seen.get(uid, -math.inf) < WORKLOAD_SECONDS:
            return None
        self._workloads_seen = {each: at for each, at in self._workloads_seen.items() if now - at < WORKLOAD_SECONDS}
        self._workloads_seen[uid] = now
        where, labels = job["metadata"]["namespace"], f"{JOB_UID}={uid}"
        found = [one async for one in self._cluster.list(self._installed[KUEUE], "Workload", where, labels=labels)]
        return found[0] if found else None


def _wants_ray(document: Document | None) -> bool:
    return isinstance(document, DatasetBuild) and document.spec.engine.workers > 0


def _wants_queue(document: Document | None) -> bool:
    return document is not None and document.spec.queue is not None


def _why_failed(status: Object) -> str:
    """What a document that has failed, or was refused, says of that."""
    for condition in status.get("conditions") or ():
        if (condition["type"], condition["status"]) in (("Failed", "True"), ("Accepted", "False")):
            return str(condition["message"])
    return ""


def _cleanup(jobs: Iterable[Object], resource: Object) -> Object | None:
    """The Job that deletes this document's data, of no attempt and without owner; whose it is, it says in a label."""
    uid = resource["metadata"]["uid"]
    found = (job for job in jobs if label(job, UID) == uid)
    return next((job for job in found if attempt_of(job) is None and not owners(job)), None)


def _pods_of(pods: Iterable[Object], jobs: Iterable[Object], ray_jobs: Iterable[Object]) -> tuple[Object, ...]:
    """Those that a Job of the run owns, or that KubeRay made for a RayJob of the run; labels alone prove nothing."""
    uids = {job["metadata"]["uid"] for job in jobs}
    names = {job["metadata"]["name"] for job in ray_jobs}

    def belongs(owner: Object) -> bool:
        made_by_ray = owner["name"] in names or owner["name"].rpartition("-")[0] in names
        return owner["uid"] in uids or (owner["kind"] in ("Job", "RayCluster") and made_by_ray)

    return tuple(pod for pod in pods if any(map(belongs, owners(pod))))


def _pods_beside(pods: Iterable[Object], cleanup: Object | None, deployments: Iterable[Object]) -> tuple[Object, ...]:
    """Those of the clean-up Job, and those of Deployments: a ReplicaSet between them has its name and a hash."""
    job = str(cleanup["metadata"]["uid"]) if cleanup else None
    names = {str(deployment["metadata"]["name"]) for deployment in deployments}

    def belongs(owner: Object) -> bool:
        above = str(owner["name"]).rpartition("-")[0] if owner["kind"] == "ReplicaSet" else ""
        return str(owner["uid"]) == job or above in names

    return tuple(pod for pod in pods if any(map(belongs, owners(pod))))


def _complaining(now: datetime, ray_jobs: Iterable[Object], pods: Iterable[Object]) -> list[str]:
    """The names of what may have something to say in Events: pods that do not start, and RayJobs with their clusters.

    Jobs are not among them: their complaints are watched.
    """
    pending = [
        pod for pod in pods if pod.get("status", {}).get("phase") == "Pending" and _age(now, pod) > QUIET_SECONDS
    ]
    names = [pod["metadata"]["name"] for pod in pending[:MOST_PENDING]]
    for job in ray_jobs:
        status = job.get("status") or {}
        if status.get("jobDeploymentStatus") in STARTING_RAY and _age(now, job) > QUIET_SECONDS:
            names += [job["metadata"]["name"], *filter(None, [status.get("rayClusterName")])]
    return names


def _age(now: datetime, item: Object) -> float:
    return (now - datetime.fromisoformat(item["metadata"]["creationTimestamp"])).total_seconds()
