"""Whether the attempt's pods run; and if they do not, why, and what to do."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from kindling_api.v1alpha1.status import Reason
from kindling_operator.children import Child, pods_of, warnings_about
from kindling_operator.draft import Draft
from kindling_operator.moments import seconds_since, stamp
from kindling_operator.pods import condition, held_up, is_over, is_running, name_of, reporter
from kindling_operator.policies.outcome import expected_pods
from kindling_operator.world import Object

PATIENCE_SECONDS = 10.0
"""How long a pod may be without a node before that is told: the pods before it may still be leaving."""

_IMAGE = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError")
_CONTAINER = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError", "StartError")
_SECRET = re.compile(r"secret \"?([^\"\s]+)\"? not found|couldn't find key (\S+) in Secret \S+", re.IGNORECASE)
_LACKING = re.compile(r"Insufficient ([\w/-]+(?:\.[\w/-]+)*)")
_REFUSALS = ("forbidden", "denied", "NameTaken", "Invalid", "MountVolume")
"""Words of warnings that do not pass by themselves."""

Obstacle = tuple[Reason, str]


def obstacles(draft: Draft) -> Draft:
    """Running, or the first obstacle."""
    child, attempt = draft.child, draft.attempt
    assert child is not None and attempt is not None, "creation lets only attempts with a Job pass"
    pods = pods_of(draft.world, child)
    speaker = reporter(pods)
    started = [pod for pod in pods if is_running(pod) or is_over(pod)]  # one that is done waits for the others
    if speaker in started and (child.is_ray or len(started) >= expected_pods(draft)):
        return _runs(draft, len(pods))
    obstacle = next(_obstacles(draft, child, pods), None)
    if obstacle is not None:
        reason, message = obstacle
        return draft.say("Running", "False", reason, message, note="Warning")
    if child.is_ray or any(_waits_for_node(pod) for pod in pods):  # KubeRay's complaints are asked for, not watched
        draft = draft.look_again(PATIENCE_SECONDS)
    message = f"Attempt {attempt.attempt} is being started."
    return draft.say("Running", "False", "Starting", message)


def _runs(draft: Draft, pods: int) -> Draft:
    attempt, said = draft.attempt, draft.world.progress
    assert attempt is not None
    message = f"Attempt {attempt.attempt} runs on {pods} pod{'s' if pods > 1 else ''}."
    if attempt.running is None:
        draft = draft.update_attempt(running=stamp(draft.now)).tell("Normal", "AttemptStarted", message)
    draft = draft.unsay("Restarting", "Started", message)
    if said is not None and said.trouble is not None:
        return draft.say("Running", "True", said.trouble, said.message or said.trouble, note="Warning")
    return draft.say("Running", "True", "Started", message)


def _obstacles(draft: Draft, child: Child, pods: Sequence[Object]) -> Iterator[Obstacle]:
    """What keeps pods from running, from what the user can mend to what may pass."""
    for pod in pods:
        yield from _in_container(pod)
    if len(pods) < expected_pods(draft) or child.is_ray or any(map(_waits_for_kubelet, pods)):
        yield from refusals(draft, child.key.name)
    for pod in pods:
        if _waits_for_node(pod):
            scheduled = condition(pod, "PodScheduled")
            if seconds_since(scheduled.get("lastTransitionTime"), draft.now) >= PATIENCE_SECONDS:
                yield _unschedulable(pod, str(scheduled.get("message") or "no node fits"))


def _in_container(pod: Object) -> Iterator[Obstacle]:
    reason, message = held_up(pod)
    name, why = name_of(pod), message or reason
    if reason in _IMAGE:
        remedy = "Check that it exists, and that images.pullSecrets of the chart name credentials for its registry."
        yield "ImagePullFailed", f"The image of pod {name} cannot be pulled: {why}. {remedy}"
    elif reason in _CONTAINER and (missing := _SECRET.search(message)):
        remedy = "Create it, with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; the pod then starts by itself."
        what = f"Secret {missing.group(1)}" if missing.group(1) else f"key {missing.group(2)}"
        yield "SecretMissing", f"The {what} that pod {name} needs is not there ({why}). {remedy}"
    elif reason in _CONTAINER:
        yield "CannotStart", f"Pod {name} cannot start: {why}."


def refusals(draft: Draft, name: str) -> Iterator[Obstacle]:
    """What the cluster refused to make, from the warnings about the Job of this name and its pods."""
    for warning in warnings_about(draft.world, name):
        why = warning.rstrip(".")
        if "exceeded quota" in warning:
            remedy = "Raise the namespace's ResourceQuota, wait for other runs to end, or ask for less in the spec."
            yield "QuotaExceeded", f"The namespace's quota leaves no room: {why}. {remedy}"
        elif any(word in warning for word in _REFUSALS):
            yield "CannotStart", f"The cluster does not let {name} start: {why}."


def _unschedulable(pod: Object, said: str) -> Obstacle:
    lacking = sorted(set(_LACKING.findall(said)))
    what = f"no node has enough {' and '.join(lacking)} left" if lacking else "no node fits"
    remedy = "Add nodes, wait for other pods to end, or change what the spec asks for under resources."
    said = said.rstrip(".")
    return "Unschedulable", f"Pod {name_of(pod)} waits for a node: {what}. The scheduler says: {said}. {remedy}"


def _waits_for_node(pod: Object) -> bool:
    scheduled = condition(pod, "PodScheduled")
    return scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable"


def _waits_for_kubelet(pod: Object) -> bool:
    return held_up(pod)[0] in ("ContainerCreating", "PodInitializing")
