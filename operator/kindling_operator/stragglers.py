"""Pods that others of their run wait for, as the run's first process tells, and the nodes that later attempts avoid."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from kindling_api.v1alpha1.runfile import Progress
from kindling_api.v1alpha1.status import AlignmentRunStatus, AttemptStatus, PretrainRunStatus, Reason
from kindling_api.v1alpha1.stragglers import Straggler
from kindling_operator.children import pods_of
from kindling_operator.draft import Draft
from kindling_operator.pods import name_of, node_of, pod_at
from kindling_operator.world import Object


def tell_stragglers(draft: Draft, reported: Progress) -> Draft:
    """The condition `Straggling`: who is waited for now; an Event tells of each pod once."""
    status, child = draft.status, draft.child
    if reported.stragglers is None or child is None or not isinstance(status, PretrainRunStatus | AlignmentRunStatus):
        return draft
    found = _placed(reported, pods_of(draft.world, child))
    if not found:
        if reported.stragglers:  # their pods are not seen yet, or no longer
            return draft
        return draft.update(stragglers=None).clear_condition("Straggling", "EvenPace", "No process is slow any more.")
    known = {straggler.pod for straggler in status.stragglers or ()}
    draft = draft.update(stragglers=found)
    draft = draft.set_condition("Straggling", "True", "SlowProcess", _message(found))
    for straggler in found:
        if straggler.pod not in known:
            draft = draft.emit_event("Warning", "Straggling", _message([straggler]))
    return draft


def end_stragglers(draft: Draft, reason: Reason, message: str) -> Draft:
    """The attempt has ended; where one was slow to its end, later attempts prefer other nodes."""
    status = draft.status
    if not isinstance(status, PretrainRunStatus | AlignmentRunStatus) or not status.stragglers:
        return draft
    nodes = list(dict.fromkeys(straggler.node for straggler in status.stragglers))
    draft = draft.update_attempt(slow_nodes=nodes).update(stragglers=None)
    return draft.clear_condition("Straggling", reason, message)


def avoided_nodes(attempts: Sequence[AttemptStatus]) -> tuple[str, ...]:
    """The nodes that were slow to the end of one of these attempts."""
    return tuple(sorted({node for attempt in attempts for node in attempt.slow_nodes or ()}))


def _placed(reported: Progress, pods: Iterable[Object]) -> list[Straggler]:
    """The slow processes that are in pods on nodes."""
    pods, found = tuple(pods), []
    for slow in reported.stragglers or ():
        pod = pod_at(pods, slow.node)
        if pod is not None and (pod.get("spec") or {}).get("nodeName"):
            place = {"pod": name_of(pod), "node": node_of(pod)}
            found.append(Straggler(**place, rank=slow.rank, factor=slow.factor, step=slow.step))
    return found


def _message(stragglers: Sequence[Straggler]) -> str:
    who = "; ".join(
        f"process {one.rank}, in pod {one.pod} on node {one.node}, takes {one.factor:.1f} times as long for its own "
        f"work as others (since step {one.step:,})"
        for one in stragglers
    )
    remedy = (
        "Look at what else the node does, and how it is limited and cooled. If it is so to the end of this attempt, "
        "later ones prefer other nodes"
    )
    return f"The run goes at the pace of its slowest: {who}. {remedy}."
