"""What a pod says: where it is, how its container ended, and its last word."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from pydantic import ValidationError

from kindling_api.errors import EXIT_DONE
from kindling_api.v1alpha1.runfile import Progress
from kindling_operator.world import Object

Disruption = Literal["NodeLost", "Evicted"]

_COMPLETION_INDEX = "batch.kubernetes.io/job-completion-index"
_RAY_NODE = "ray.io/node-type"

_LOST = ("DeletionByTaintManager", "DeletionByPodGC")
"""Reasons of the condition DisruptionTarget with which Kubernetes gives up the pods of a node that is gone."""
_LOST_STATUS = ("NodeLost",)
_EVICTED_STATUS = ("NodeShutdown", "Shutdown", "Terminated", "Preempting", "NodeAffinity", "UnexpectedAdmissionError")
"""What a kubelet writes as `status.reason` of a pod that it ends, or does not take, for its node's sake."""


def name_of(pod: Object) -> str:
    """The pod's name."""
    return str(pod["metadata"]["name"])


def reporter(pods: Iterable[Object]) -> Object | None:
    """The pod that speaks for the attempt. Of two, as after a pre-emption, the newer one."""
    return max(reporters(pods), key=lambda pod: str(pod["metadata"].get("creationTimestamp", "")), default=None)


def reporters(pods: Iterable[Object]) -> list[Object]:
    """The pods that speak for the attempt: the first of a Job, the submitter of a RayJob; more than one where another
    has been made in its place."""
    return [pod for pod in pods if _RAY_NODE not in _labels(pod) and _index(pod) in (None, "0")]


def pod_at(pods: Iterable[Object], index: int) -> Object | None:
    """The pod of a Job with this completion index; of two, as where a lost one was made anew, the newer."""
    there = [pod for pod in pods if _index(pod) == str(index)]
    return max(there, key=lambda pod: str(pod["metadata"].get("creationTimestamp", "")), default=None)


def is_running(pod: Object) -> bool:
    """Whether its container runs, as far as the API server knows."""
    return _status(pod).get("phase") == "Running" and not is_going(pod) and end_of(pod) is None


def is_going(pod: Object) -> bool:
    """Whether it is being deleted."""
    return "deletionTimestamp" in pod["metadata"]


def is_over(pod: Object) -> bool:
    """Whether it has ended, and for good: containers of a Ray node start again."""
    return _status(pod).get("phase") in ("Succeeded", "Failed") or (end_of(pod) is not None and not _is_ray(pod))


def has_failed(pod: Object) -> bool:
    """Whether it ended badly."""
    code = (end_of(pod) or {}).get("exitCode", EXIT_DONE)
    return _status(pod).get("phase") == "Failed" or code != EXIT_DONE


def end_of(pod: Object) -> Object | None:
    """How its container ended: exitCode, signal, reason, message, finishedAt; None while it has not."""
    for container in _status(pod).get("containerStatuses") or ():
        if ended := (container.get("state") or {}).get("terminated"):
            return dict(ended)
    return None


def ran_out_of_memory(pod: Object) -> bool:
    """Whether the kernel ended its container, or the one before it, for its memory."""
    states = [
        container.get(when) or {}
        for container in _status(pod).get("containerStatuses") or ()
        for when in ("state", "lastState")
    ]
    return any((state.get("terminated") or {}).get("reason") == "OOMKilled" for state in states)


def started_at(pod: Object) -> str:
    """When its container started (RFC 3339); empty where it has not."""
    for container in _status(pod).get("containerStatuses") or ():
        for state in (container.get("state") or {}).values():
            if started := (state or {}).get("startedAt"):
                return str(started)
    return ""


def held_up(pod: Object) -> tuple[str, str]:
    """Why its container does not start, as reason and message of the kubelet; empty where it is not held up."""
    for container in _status(pod).get("containerStatuses") or ():
        if waiting := (container.get("state") or {}).get("waiting"):
            return str(waiting.get("reason") or ""), str(waiting.get("message") or "")
    return "", ""


def waits_for_node(pod: Object) -> bool:
    """Whether the scheduler has found no node for it."""
    scheduled = condition(pod, "PodScheduled")
    return scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable"


def condition(pod: Object, type_: str) -> Object:
    """One of its conditions; an empty object where it has none of this type."""
    return next((one for one in _status(pod).get("conditions") or () if one.get("type") == type_), {})


def disruption(pod: Object) -> tuple[Disruption, str] | None:
    """Whether Kubernetes took it away, and why in its words; nothing that the run could have helped."""
    target = condition(pod, "DisruptionTarget")
    if target.get("status") == "True":
        kind: Disruption = "NodeLost" if target.get("reason") in _LOST else "Evicted"
        return kind, str(target.get("message") or target.get("reason") or "")
    reason, message = str(_status(pod).get("reason") or ""), str(_status(pod).get("message") or "")
    if reason in _LOST_STATUS:
        return "NodeLost", message or reason
    if reason in _EVICTED_STATUS or reason.startswith("OutOf"):  # OutOfcpu, OutOfmemory: the node was full after all
        return "Evicted", message or reason
    return None


def last_word(pod: Object) -> Progress | None:
    """What its program left in the termination message; None where that is something else, or nothing."""
    ended = end_of(pod)
    try:
        return Progress.model_validate_json(str(ended.get("message") or "")) if ended else None
    except ValidationError:
        return None


def last_lines(pod: Object) -> str:
    """The termination message where it is no last word: the end of the log, with which Kubernetes fills it."""
    ended = end_of(pod)
    return "" if ended is None or last_word(pod) is not None else str(ended.get("message") or "").strip()


def node_of(pod: Object) -> str:
    """The node that it is, or was, on."""
    return str((pod.get("spec") or {}).get("nodeName") or "no node")


def _status(pod: Object) -> Object:
    return dict(pod.get("status") or {})


def _labels(pod: Object) -> Object:
    return dict(pod["metadata"].get("labels") or {})


def _is_ray(pod: Object) -> bool:
    return _RAY_NODE in _labels(pod)


def _index(pod: Object) -> str | None:
    """The completion index of an Indexed Job's pod; Kubernetes writes it as annotation and label."""
    return _labels(pod).get(_COMPLETION_INDEX) or (pod["metadata"].get("annotations") or {}).get(_COMPLETION_INDEX)
