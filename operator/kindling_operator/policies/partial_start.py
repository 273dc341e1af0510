"""An attempt of several pods of which some have nodes and others find none.

What it holds may be just what another run waits for, which holds what this one waits for: neither would ever start.
So it frees its pods after a while and tries again later, each run after another while: the first to give way lets the
other start. Where a queue admits runs as a whole, giving way is the queue's business.
"""

from __future__ import annotations

from kindling_api.bounds import START_SPREAD
from kindling_api.quantities import seconds
from kindling_api.v1alpha1.status import Failure
from kindling_operator.attempts import fail_attempt, restart_of, share_of
from kindling_operator.causes import Cause
from kindling_operator.children import pods_of
from kindling_operator.draft import Draft
from kindling_operator.moments import moment, seconds_since
from kindling_operator.pods import condition, name_of, node_of, reporter, waits_for_node
from kindling_operator.policies.outcome import expected_pods


def partial_start(draft: Draft) -> Draft:
    """The attempt ends; that does not count against `restart.maxRestarts`."""
    child, attempt = draft.child, draft.attempt
    assert child is not None and attempt is not None, "creation lets only attempts with a Job pass"
    if expected_pods(draft) < 2 or draft.document.spec.queue is not None or attempt.running is not None:
        return draft
    pods = pods_of(draft.world, child)
    placed = [pod for pod in pods if (pod.get("spec") or {}).get("nodeName")]
    refused = [pod for pod in pods if waits_for_node(pod)]
    since = [moment(condition(pod, "PodScheduled").get("lastTransitionTime")) for pod in refused]
    times = [time for time in since if time is not None]
    enough = len(placed) >= expected_pods(draft) and reporter(pods) in placed
    if enough or not placed or not times:
        return draft
    timeout = restart_of(draft).start_timeout
    waits, limit = seconds_since(min(times), draft.now), seconds(timeout) * (1 + START_SPREAD * share_of(draft))
    if waits < limit:
        return draft.requeue_within(limit - waits)
    held = ", ".join(sorted({node_of(pod) for pod in placed}))
    what = f"{len(placed)} of {expected_pods(draft)} pods have nodes ({held}), and {name_of(refused[0])} found none"
    message = f"{what} for {waits:.0f} seconds (restart.startTimeout: {timeout}): they give way to other runs."
    return fail_attempt(draft, Cause(Failure(reason="PartialStart", message=message), counts=False))
