"""The Jobs and RayJobs of a document, read alike."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from kindling_operator.labels import attempt_of
from kindling_operator.owners import owned
from kindling_operator.world import Object, ObjectKey, World

Ending = Literal["succeeded", "failed"]

_ENDINGS: dict[str, Ending] = {
    "Complete": "succeeded",
    "SuccessCriteriaMet": "succeeded",
    "Failed": "failed",
    "FailureTarget": "failed",
}
"""Conditions of a Job; the second and the fourth come first, while pods are still being ended."""


@dataclass(frozen=True)
class Child:
    """What runs one attempt: a Job, or a RayJob of KubeRay."""

    attempt: int
    object: Object
    ending: Ending | None
    """How it ended; None while it has not."""
    why: str
    """What its controller says about the end."""
    ended_at: str
    """When its controller first said so (RFC 3339)."""

    @property
    def is_ray(self) -> bool:
        """Whether KubeRay runs it: then the loss of a pod is not its end, for Ray replaces workers."""
        return str(self.object["kind"]) == "RayJob"

    @property
    def uid(self) -> str:
        """The UID that the API server gave it."""
        return str(self.object["metadata"].get("uid", ""))

    @property
    def created(self) -> str:
        """When (RFC 3339)."""
        return str(self.object["metadata"].get("creationTimestamp", ""))

    @property
    def is_going(self) -> bool:
        """Whether somebody has deleted it."""
        return "deletionTimestamp" in self.object["metadata"]

    @property
    def is_suspended(self) -> bool:
        """Whether a queue holds it back."""
        return bool(self.object.get("spec", {}).get("suspend"))

    @property
    def key(self) -> ObjectKey:
        """The object's kind, namespace and name."""
        return key_of_object(self.object)


def key_of_object(thing: Object) -> ObjectKey:
    """The name of any object."""
    metadata = thing["metadata"]
    return ObjectKey(thing["apiVersion"], thing["kind"], metadata.get("namespace", "default"), metadata["name"])


def children_of(world: World) -> tuple[Child, ...]:
    """The document's Jobs and RayJobs by attempt; those of an earlier document of the same name are not its own."""
    own = owned((*world.jobs, *world.ray_jobs), world.resource)
    children = [_child(attempt, thing) for thing in own if (attempt := attempt_of(thing)) is not None]
    return tuple(sorted(children, key=lambda child: child.attempt))


def pods_of(world: World, child: Child) -> tuple[Object, ...]:
    """The pods of an attempt, by name. A Job's pods are those that it owns; KubeRay owns a RayJob's."""
    pods = [pod for pod in world.pods if attempt_of(pod) == child.attempt]
    if not child.is_ray:
        pods = list(owned(pods, child.object))
    return tuple(sorted(pods, key=lambda pod: str(pod["metadata"]["name"])))


def warnings_about(world: World, name: str) -> Iterator[str]:
    """What was said in warnings about an attempt's Job and pods, which begin with its name; the newest first."""
    mine = [
        warning
        for warning in world.warnings
        if (about := str((warning.get("involvedObject") or warning.get("regarding") or {}).get("name", ""))) == name
        or about.startswith(f"{name}-")
    ]
    for warning in sorted(mine, key=_last_seen, reverse=True):
        yield str(warning.get("message") or warning.get("note") or "")


def job_ending(job: Object) -> Ending | None:
    """How a Job ended; None while it has not."""
    return _ENDINGS[ended["type"]] if (ended := _ending_condition(job)) else None


def _child(attempt: int, thing: Object) -> Child:
    status = thing.get("status") or {}
    if thing["kind"] == "RayJob":
        why = str(status.get("message") or status.get("reason") or "")
        return Child(attempt, thing, _ray_ending(status), why, ended_at=str(status.get("endTime") or ""))
    ended = _ending_condition(thing)
    why = str(ended.get("message") or ended.get("reason") or "")
    return Child(attempt, thing, job_ending(thing), why, ended_at=str(ended.get("lastTransitionTime") or ""))


def _ending_condition(job: Object) -> Object:
    conditions = (job.get("status") or {}).get("conditions") or ()
    return next((one for one in conditions if one.get("type") in _ENDINGS and one.get("status") == "True"), {})


def _ray_ending(status: Object) -> Ending | None:
    match status.get("jobDeploymentStatus"):
        case "Complete":
            return "succeeded" if status.get("jobStatus") == "SUCCEEDED" else "failed"
        case "Failed" | "ValidationFailed":
            return "failed"
        case _:
            return None


def _last_seen(warning: Object) -> str:
    series = warning.get("series") or {}
    for text in (series.get("lastObservedTime"), warning.get("lastTimestamp"), warning.get("eventTime")):
        if text:
            return str(text)
    return str(warning["metadata"].get("creationTimestamp", ""))
