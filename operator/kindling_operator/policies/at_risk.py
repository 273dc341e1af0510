"""How much work is done again if a run of a queue is stopped now, told where Kueue looks when it must stop one.

Kueue knows no such figure: among runs of one priority it stops the one admitted last. With its gate `PriorityBoost` it
adds the annotation `kueue.x-k8s.io/priority-boost` of a Workload to its priority, and so stops what costs least. The
boost is below 200: classes of priorities that lie 200 apart or more keep their order, whatever is at risk.
"""

from __future__ import annotations

import math

from kindling_api.base import GROUP
from kindling_api.v1alpha1.status import DatasetBuildStatus
from kindling_operator.children import key_of_object
from kindling_operator.draft import Draft
from kindling_operator.moments import moment

SECONDS_AT_RISK = f"{GROUP}/seconds-at-risk"
BOOST = "kueue.x-k8s.io/priority-boost"

REFRESH_SECONDS = 15.0
"""Between two looks at a Workload whose run is at work."""

MOST_AT_RISK = 99
"""The boost for what is at risk: 10 for ten seconds, 28 for a minute, 59 for ten, 99 from two and a half hours on. A
logarithm, for whether two runs differ is a matter of proportion; so it rarely changes, too."""

KEPT_PLACE = 100
"""The boost of an attempt that follows the loss of a node: it goes before all that only wait, takes the place of what
was admitted in its stead, and has it from runs to which this did not happen. Those to which it did have it as well, so
that no two runs can displace each other in turn."""


def at_risk(draft: Draft) -> Draft:
    """Seconds since the last commit, or since the attempt runs; and whoever lost a node stays before the others."""
    if draft.document.spec.queue is None:
        return draft
    draft = draft.requeue_within(REFRESH_SECONDS)
    seconds = _seconds_at_risk(draft)
    return tell_kueue(draft, seconds) if seconds is not None else draft


def tell_kueue(draft: Draft, seconds: float) -> Draft:
    """Annotate the Workload, where it was looked at just now and says something else: this is written rarely."""
    workload = draft.world.workload
    if workload is None:
        return draft
    known = workload["metadata"].get("annotations") or {}
    boost = boost_of(seconds) + (KEPT_PLACE if has_lost_a_node(draft) else 0)
    if str(boost) == known.get(BOOST, "0"):
        return draft
    annotations = {BOOST: str(boost), SECONDS_AT_RISK: str(int(seconds))}
    return draft.patch(key_of_object(workload), {"metadata": {"annotations": annotations}})


def boost_of(seconds: float) -> int:
    """From 0 to MOST_AT_RISK."""
    return min(MOST_AT_RISK, int(10 * math.log2(1 + max(0.0, seconds) / 10)))


def has_lost_a_node(draft: Draft) -> bool:
    """Whether the attempt before this one ended with a node."""
    attempts = draft.status.attempts
    return len(attempts) > 1 and attempts[-2].reason == "NodeLost"


def _seconds_at_risk(draft: Draft) -> float | None:
    """None while it does not run; a build keeps what it has read, stage by stage, and is not asked."""
    status, attempt = draft.status, draft.attempt
    running = moment(attempt.running) if attempt is not None else None
    if running is None or isinstance(status, DatasetBuildStatus):
        return None
    checkpoint = getattr(status, "checkpoint", None)
    committed = moment(checkpoint.time) if checkpoint is not None else None
    since = max(running, committed) if committed is not None else running
    return max(0.0, (draft.now - since).total_seconds())
