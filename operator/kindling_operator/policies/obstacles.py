"""Whether the attempt's pods run; and if they do not, why, and what to do."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from kindling_api.v1alpha1.status import Reason
from kindling_api.v1alpha1.storage import CREDENTIALS
from kindling_operator.children import Child, pods_of, warnings_about
from kindling_operator.draft import Draft
from kindling_operator.moments import seconds_since, stamp
from kindling_operator.pods import condition, held_up, is_over, is_running, name_of, reporter, waits_for_node
from kindling_operator.policies.outcome import expected_pods
from kindling_operator.render.secrets import of_run
from kindling_operator.resizes import min_nodes
from kindling_operator.world import Object

GRACE_SECONDS = 10.0
"""How long a pod may be without a node before that is told: the pods before it may still be leaving."""

_IMAGE = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError")
_CONTAINER = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError", "StartError")
_SECRET = re.compile(r"secret \"?([^\"\s]+)\"? not found|references non-existent secret key: (\S+)", re.IGNORECASE)
_VOLUME = re.compile(r"for volume \"([^\"]+)\"")
_LACKING = re.compile(r"Insufficient ([\w/-]+(?:\.[\w/-]+)*)")
_PRIORITY = re.compile(r"no PriorityClass with name (\S+) was found")
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
        return _runs(draft, len(started) if min_nodes(draft) is not None else len(pods))
    obstacle = next(_obstacles(draft, child, pods), None)
    if obstacle is not None:
        reason, message = obstacle
        return draft.set_condition("Running", "False", reason, message, event="Warning")
    draft = requeue_for_warnings(draft, pods)
    if child.is_ray or any(map(waits_for_node, pods)):  # KubeRay's complaints are asked for, not watched
        draft = draft.requeue_within(GRACE_SECONDS)
    message = f"Attempt {attempt.attempt} is being started."
    return draft.set_condition("Running", "False", "Starting", message)


def _runs(draft: Draft, pods: int) -> Draft:
    attempt, reported, nodes = draft.attempt, draft.world.progress, getattr(draft.status, "nodes", None)
    assert attempt is not None
    message = f"Attempt {attempt.attempt} runs on {pods} pod{'s' if pods > 1 else ''}."
    if nodes is not None and nodes.running:
        message = f"Attempt {attempt.attempt} runs over {nodes.running} of {nodes.wanted} nodes."
    if attempt.running is None:
        draft = draft.update_attempt(running=stamp(draft.now)).emit_event("Normal", "AttemptStarted", message)
    draft = draft.clear_condition("Restarting", "Started", message)
    if reported is not None and reported.trouble is not None:
        return draft.set_condition(
            "Running", "True", reported.trouble, reported.message or reported.trouble, event="Warning"
        )
    return draft.set_condition("Running", "True", "Started", message)


def _obstacles(draft: Draft, child: Child, pods: Sequence[Object]) -> Iterator[Obstacle]:
    """What keeps pods from running, from what the user can mend to what may pass."""
    for pod in pods:
        yield from _in_container(pod)
    if len(pods) < expected_pods(draft) or child.is_ray or any(map(_waits_for_kubelet, pods)):
        yield from refusals(draft, child.key.name)
    for pod in pods:
        if waits_for_node(pod):
            scheduled = condition(pod, "PodScheduled")
            if seconds_since(scheduled.get("lastTransitionTime"), draft.now) >= GRACE_SECONDS:
                yield _unschedulable(pod, str(scheduled.get("message") or "no node fits"))


def requeue_for_warnings(draft: Draft, pods: Sequence[Object]) -> Draft:
    """Soon, where one waits for kubelet: its warnings are asked for, not watched, and change nothing of the pod."""
    return draft.requeue_within(GRACE_SECONDS) if any(map(_waits_for_kubelet, pods)) else draft


def beside(draft: Draft) -> Iterator[Obstacle]:
    """What keeps the pods of clean-up and serving from running."""
    for pod in draft.world.pods_beside:
        yield from _in_container(pod)
        yield from refusals(draft, name_of(pod))


def _in_container(pod: Object) -> Iterator[Obstacle]:
    """Why the container of a pod does not start."""
    reason, message = held_up(pod)
    name, why = name_of(pod), message or reason
    if reason in _IMAGE:
        remedy = "Check that it exists, and that images.pullSecrets of the chart name credentials for its registry."
        yield "ImagePullFailed", f"The image of pod {name} cannot be pulled: {why}. {remedy}"
    elif reason in _CONTAINER:
        yield "CannotStart", f"Pod {name} cannot start: {why}."


def refusals(draft: Draft, name: str) -> Iterator[Obstacle]:
    """What the cluster refused to make, from the warnings about the Job of this name and its pods."""
    for warning in warnings_about(draft.world, name):
        why = warning.rstrip(".")
        if "exceeded quota" in warning:
            remedy = "Raise the namespace's ResourceQuota, wait for other runs to end, or ask for less in the spec."
            yield "QuotaExceeded", f"The namespace's quota leaves no room: {why}. {remedy}"
        elif missing := _SECRET.search(warning):
            yield "SecretMissing", _secret_missing(draft, name, why, *missing.groups())
        elif missing := _PRIORITY.search(warning):
            remedy = "Create it (kubectl get priorityclasses shows those that exist), and the run starts by itself."
            yield "PriorityMissing", f"There is no PriorityClass {missing[1]}, which spec.priority names. {remedy}"
        elif any(word in warning for word in _REFUSALS):
            yield "CannotStart", f"The cluster does not let {name} start: {why}."


def _secret_missing(draft: Draft, name: str, why: str, secret: str | None, key: str | None) -> str:
    volume, document = _VOLUME.search(why), draft.world.document
    mounted = of_run(document.spec, draft.storage) if document is not None and draft.storage is not None else ()
    meant = next((one for one in mounted if volume is not None and one.volume == volume.group(1)), None)
    secret = secret or (meant.name if meant is not None else None)
    what = f"key {key} of the Secret{f' {secret}' if secret else ''}" if key else f"Secret {secret}"
    keys = meant.keys if meant is not None else () if volume is not None else CREDENTIALS[:-1]
    what_it_holds = f", with {' and '.join(keys)}" if keys else ""
    remedy = f"Create it{what_it_holds}; the pod then starts by itself.{_kept_to(draft, secret)}"
    return f"The {what} that {name} needs is not there ({why}). {remedy}"


def _kept_to(draft: Draft, secret: str | None) -> str:
    """Why it is this Secret, where the installation's default has become another one."""
    storage, default = draft.storage, draft.world.settings.storage
    own = draft.world.document is not None and draft.world.document.spec.storage is not None
    if storage is None or storage.credentials_secret != secret or storage == default or own:
        return ""
    return f" It is that of {storage.uri}, the default storage when this document was accepted, to which it keeps."


def _unschedulable(pod: Object, reported: str) -> Obstacle:
    lacking = sorted(set(_LACKING.findall(reported)))
    what = f"no node has enough {' and '.join(lacking)} left" if lacking else "no node fits"
    remedy = "Add nodes, wait for other pods to end, or change what the spec asks for under resources."
    reported = reported.rstrip(".")
    return "Unschedulable", f"Pod {name_of(pod)} waits for a node: {what}. The scheduler says: {reported}. {remedy}"


def _waits_for_kubelet(pod: Object) -> bool:
    """Whether its images, volumes or keys are still being brought to its node."""
    return held_up(pod)[0] in ("ContainerCreating", "PodInitializing")
