"""What is seen of one document: the cache tells most of it; some Warning events are asked for, where a run is stuck."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import NamedTuple

from kindling_api.documents import Document, parse
from kindling_api.errors import SpecError
from kindling_api.references import Reference, uses
from kindling_api.resolve import Finished
from kindling_api.v1alpha1.dataset_build import DatasetBuild
from kindling_api.v1alpha1.storage import StorageSpec
from kindling_operator.cache import RAY, Cache
from kindling_operator.cluster import Cluster
from kindling_operator.polling import Heard, Target, target_of
from kindling_operator.render.cleanup import UID_LABEL
from kindling_operator.settings import Settings
from kindling_operator.world import Object, Referred, World

QUIET_SECONDS = 3.0
"""A RayJob or pod that is younger than this has nothing to complain about yet."""

STARTING_RAY = (None, "", "New", "Initializing")
"""`status.jobDeploymentStatus` of a RayJob whose cluster is not up."""

MOST_PENDING = 3
"""Pods of one run whose Warning events are read: the others say the same."""

RAY_CHECK_SECONDS = 10.0


class _Parsed(NamedTuple):
    uid: str
    generation: int
    document: Document | None
    refusal: str


class Observer:
    """Makes Worlds."""

    def __init__(self, settings: Settings, cluster: Cluster, cache: Cache, heard: Mapping[Reference, Heard]) -> None:
        """`heard` is what runs have said over the network; somebody else fills it."""
        self._settings = settings
        self._cluster = cluster
        self._cache = cache
        self._heard = heard
        self._parsed: dict[Reference, _Parsed] = {}
        self._ray_installed = False
        self._ray_checked = float("-inf")
        self.refused: dict[Reference, Object] = {}
        """Writes that the API server refused, as if it had been a Warning event; `enact` keeps it."""

    async def observe(self, reference: Reference) -> World | None:
        """The world of one document; None where there is no such document (any more)."""
        resource = self._cache.document(reference)
        if resource is None:
            self._parsed.pop(reference, None)
            self.refused.pop(reference, None)
            return None
        now = datetime.now(UTC)
        document, refusal = self._document(reference, resource)
        jobs = _owned(self._cache.children(reference, "Job"), resource)
        ray_jobs = _owned(self._cache.children(reference, "RayJob"), resource)
        pods = _pods_of(self._cache.children(reference, "Pod"), jobs, ray_jobs)
        heard = self._heard.get(reference)
        if heard and heard.attempt != (resource.get("status") or {}).get("attempt"):
            heard = None
        return World(
            now=now,
            settings=self._settings,
            resource=resource,
            document=document,
            refusal=refusal,
            references=self._references(reference, document),
            jobs=jobs,
            ray_jobs=ray_jobs,
            cleanup=_cleanup(self._cache.children(reference, "Job"), resource),
            deployment=next(iter(_owned(self._cache.children(reference, "Deployment"), resource)), None),
            pods=pods,
            warnings=await self._warnings(reference, now, jobs, ray_jobs, pods),
            progress=heard.progress if heard else None,
            progress_at=heard.at if heard else None,
            ray_installed=await self._knows_ray(document),
        )

    def targets(self) -> list[Target]:
        """Whom to ask how far they are: a pod of every run that has one running."""
        found = []
        for reference, resource in self._cache.documents():
            status = resource.get("status") or {}
            if status.get("attempt") and status.get("phase") not in ("Succeeded", "Failed"):
                jobs = _owned(self._cache.children(reference, "Job"), resource)
                ray_jobs = _owned(self._cache.children(reference, "RayJob"), resource)
                pods = _pods_of(self._cache.children(reference, "Pod"), jobs, ray_jobs)
                found.append(target_of(reference, status["attempt"], pods))
        return [target for target in found if target]

    def _document(self, reference: Reference, resource: Object) -> tuple[Document | None, str]:
        """The document, parsed once for each generation of it."""
        metadata = resource["metadata"]
        known = self._parsed.get(reference)
        if known is None or (known.uid, known.generation) != (metadata["uid"], metadata["generation"]):
            try:
                document = parse({**resource, "status": None}, source=str(reference))
                known = _Parsed(metadata["uid"], metadata["generation"], document, "")
            except SpecError as error:
                sentences = str(error).replace(f"{reference}:1: ", "")
                known = _Parsed(metadata["uid"], metadata["generation"], None, sentences)
            self._parsed[reference] = known
        return known.document, known.refusal

    def _references(self, reference: Reference, document: Document | None) -> dict[Reference, Referred]:
        targets = [target for use in uses(document) for target in use.candidates] if document else []
        self._cache.refers(reference, targets)
        own = self._storage(document)
        return {
            target: self._referred(target, seen, own) for target in targets if (seen := self._cache.document(target))
        }

    def _referred(self, target: Reference, resource: Object, own: StorageSpec | None) -> Referred:
        status = resource.get("status") or {}
        phase, result = status.get("phase") or "Pending", status.get("result")
        if phase != "Succeeded" or not result:
            return Referred(phase, message=_why_failed(status))
        storage = self._storage(self._document(target, resource)[0])
        return Referred(phase, Finished(result["uri"], result["digest"], storage if storage != own else None))

    def _storage(self, document: Document | None) -> StorageSpec | None:
        return (document.spec.storage if document else None) or self._settings.storage

    async def _warnings(
        self,
        reference: Reference,
        now: datetime,
        jobs: Iterable[Object],
        ray_jobs: Iterable[Object],
        pods: Iterable[Object],
    ) -> tuple[Object, ...]:
        refused = self.refused.get(reference)
        names = _complaining(now, ray_jobs, pods)
        pages = await asyncio.gather(*(self._events(reference.namespace, name) for name in names))
        known = ([refused] if refused else []) + self._cache.warnings(jobs)
        return (*known, *(event for page in pages for event in page))

    async def _events(self, namespace: str, name: str) -> list[Object]:
        fields = f"type=Warning,involvedObject.name={name}"
        return [event async for event in self._cluster.list("v1", "Event", namespace, fields=fields)]

    async def _knows_ray(self, document: Document | None) -> bool:
        """Whether RayJobs are known: asked only by a document that needs them, and now and then until they are."""
        if not isinstance(document, DatasetBuild) or not document.spec.engine.workers:
            return True
        if not self._ray_installed and time.monotonic() - self._ray_checked > RAY_CHECK_SECONDS:
            self._ray_checked = time.monotonic()
            self._ray_installed = await self._cluster.installed(RAY, "RayJob")
        return self._ray_installed


def _why_failed(status: Object) -> str:
    """What a document that has failed, or was refused, says of that."""
    for condition in status.get("conditions") or ():
        if (condition["type"], condition["status"]) in (("Failed", "True"), ("Accepted", "False")):
            return str(condition["message"])
    return ""


def _owned(children: Iterable[Object], resource: Object) -> tuple[Object, ...]:
    """Those that this very document owns, and not one of the same name before it."""
    uid = resource["metadata"]["uid"]
    return tuple(child for child in children if any(owner["uid"] == uid for owner in owners(child)))


def _cleanup(jobs: Iterable[Object], resource: Object) -> Object | None:
    """The Job that deletes this document's data; it has no owner, and says whose it is in a label."""
    uid = resource["metadata"]["uid"]
    return next((job for job in jobs if job["metadata"]["labels"].get(UID_LABEL) == uid), None)


def _pods_of(pods: Iterable[Object], jobs: Iterable[Object], ray_jobs: Iterable[Object]) -> tuple[Object, ...]:
    """Those that a Job of the run owns, or that KubeRay made for a RayJob of the run; labels alone prove nothing."""
    uids = {job["metadata"]["uid"] for job in jobs}
    names = {job["metadata"]["name"] for job in ray_jobs}

    def belongs(owner: Object) -> bool:
        made_by_ray = owner["name"] in names or owner["name"].rpartition("-")[0] in names
        return owner["uid"] in uids or (owner["kind"] in ("Job", "RayCluster") and made_by_ray)

    return tuple(pod for pod in pods if any(map(belongs, owners(pod))))


def owners(child: Object) -> list[Object]:
    """The ownerReferences of an object."""
    found: list[Object] = child["metadata"].get("ownerReferences") or []
    return found


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
