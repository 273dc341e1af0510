"""What earlier attempts have left: gone at once where it is still at work, kept for its logs where it was the last.

A Job of which a pod has failed counts as ended: its controller ends the other pods, and leaves the logs of all.
Asked after all policies, about the status as they left it.
"""

from __future__ import annotations

from kindling_operator.children import Child, pods_of
from kindling_operator.draft import Draft
from kindling_operator.pods import has_failed
from kindling_operator.world import ObjectKey

_BESIDE_A_JOB = (("networking.k8s.io/v1", "NetworkPolicy"), ("v1", "Service"), ("v1", "ConfigMap"))


def sweeping(draft: Draft) -> Draft:
    """The Job goes last, so that an interruption leaves what reminds of the rest."""
    if "deletionTimestamp" in draft.world.resource["metadata"]:
        return draft
    for child in draft.children:
        if not child.is_going and not _stays(child, draft):
            key = child.key
            beside = [ObjectKey(version, kind, key.namespace, key.name) for version, kind in _BESIDE_A_JOB]
            draft = draft.remove(*beside, key)
    return draft


def _stays(child: Child, draft: Draft) -> bool:
    newest = draft.attempt
    if newest is None or child.attempt > newest.attempt:
        return True
    if child.attempt == newest.attempt and newest.ended is None:
        return True
    ends = child.ending is not None or (not child.is_ray and any(map(has_failed, pods_of(draft.world, child))))
    return ends and child.attempt >= newest.attempt - 1
