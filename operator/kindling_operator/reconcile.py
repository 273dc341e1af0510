"""Look, decide, act: the one function that every event, timer and resync leads to."""

from __future__ import annotations

from kindling_api.references import Reference
from kindling_operator import logs
from kindling_operator.apply import Applier
from kindling_operator.decide import decide
from kindling_operator.metrics import RECONCILE_ERRORS, RECONCILE_SECONDS
from kindling_operator.observe import Observer


class Reconciler:
    """Brings one document at a time nearer to what it says."""

    def __init__(self, observer: Observer, applier: Applier) -> None:
        self._observer = observer
        self._applier = applier

    async def reconcile(self, reference: Reference) -> float | None:
        """Do what is to be done now.

        Returns:
            After how many seconds to look again; None for whenever something changes.

        Raises:
            ClusterError: the API server refused, or did not answer; it is to be retried.
        """
        logs.RUN.set(f"{reference.kind}/{reference.namespace}/{reference.name}")
        logs.ATTEMPT.set(0)
        with (
            RECONCILE_ERRORS.labels(reference.kind).count_exceptions(),
            RECONCILE_SECONDS.labels(reference.kind).time(),
        ):
            world = await self._observer.observe(reference)
            if world is None:
                return None
            logs.ATTEMPT.set((world.resource.get("status") or {}).get("attempt", 0))
            plan = decide(world)
            changed = await self._applier.apply(world.resource, plan)
        return 0.0 if changed else plan.requeue_after
