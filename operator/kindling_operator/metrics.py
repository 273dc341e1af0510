"""What the operator says of itself to Prometheus, and of the runs that it looks after."""

from __future__ import annotations

from collections import Counter as Count
from collections.abc import Callable, Iterable, Iterator

from prometheus_client import REGISTRY, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from kindling_api.references import Reference
from kindling_operator.world import Object

disable_created_metrics()  # type: ignore[no-untyped-call]

RECONCILE_SECONDS = Histogram(
    "kindling_reconcile_seconds",
    "Time from looking at a run to having done what follows from it.",
    ["kind"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.25, 0.35, 0.5, 1, 2.5, 5, 10),
)
RECONCILE_ERRORS = Counter("kindling_reconcile_errors", "Looks at a run that failed and are repeated.", ["kind"])
STATUS_WRITES = Counter("kindling_status_writes", "Statuses written.")
QUEUE_DEPTH = Gauge("kindling_queue_depth", "Runs that wait to be looked at.")
LEADER = Gauge("kindling_leader", "1 on the replica that leads, 0 on the others.")
LOOP_LAG_SECONDS = Gauge("kindling_loop_lag_seconds", "By how much the event loop was last late.")

NAMESPACE_WATCHED = Gauge(
    "kindling_namespace_watched",
    "1 for a namespace of watch.namespaces that is watched, 0 where it is gone, goes, or may not be read.",
    ["namespace"],
)

MOST_RUNS = 500
"""Runs of which single figures are told: more would be too many time series."""

FIGURES = {
    "step": "Optimizer steps done.",
    "loss": "Training loss (nats a token).",
    "percent": "How much of the run is done.",
    "tokensPerSecond": "Training speed.",
    "documentsPerSecond": "Speed of a build.",
}
"""Fields of `status.progress` that are exported of every run that runs."""


class Runs(Collector):
    """Runs by phase, and the figures of those that run, read off their statuses when asked."""

    def __init__(self, documents: Callable[[], Iterable[tuple[Reference, Object]]]) -> None:
        self._documents = documents

    def collect(self) -> Iterator[Metric]:
        """The metrics of the runs, as prometheus_client asks for them."""
        phases: Count[tuple[str, str]] = Count()
        running: list[tuple[Reference, str, Object]] = []
        for reference, resource in list(self._documents()):
            status = resource.get("status") or {}
            phases[reference.kind, status.get("phase") or "Pending"] += 1
            if status.get("phase") == "Running" and len(running) < MOST_RUNS:
                running.append((reference, resource["metadata"]["uid"], status.get("progress") or {}))
        runs = GaugeMetricFamily("kindling_runs", "Documents by kind and phase.", labels=("kind", "phase"))
        for labels, number in phases.items():
            runs.add_metric(labels, number)
        yield runs
        for name, description in FIGURES.items():
            yield _figure(name, description, running)


def watch(documents: Callable[[], Iterable[tuple[Reference, Object]]]) -> None:
    """Tell about these documents from now on."""
    REGISTRY.register(Runs(documents))


def _figure(name: str, description: str, running: Iterable[tuple[Reference, str, Object]]) -> Metric:
    spelt = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)
    family = GaugeMetricFamily(f"kindling_run_{spelt}", description, labels=("kind", "namespace", "name", "uid"))
    for reference, uid, progress in running:
        if progress.get(name) is not None:
            family.add_metric((reference.kind, reference.namespace, reference.name, uid), progress[name])
    return family
