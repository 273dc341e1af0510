"""A finalizer keeps a document whose data goes with it, and no other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kindling_operator.children import key_of_object

Make = Callable[..., Any]
FINALIZER = "kindling.dev/retention"


def test_a_document_whose_data_stays_has_no_finalizer_and_makes_nothing_once_deleted(cluster: Make) -> None:
    run = cluster()
    run.reconcile()
    assert "finalizers" not in run.resource["metadata"]
    run.resource["metadata"]["deletionTimestamp"] = "2026-05-01T12:00:00Z"
    run.objects.clear()
    plan = run.reconcile()
    assert (plan.create, plan.delete, plan.status) == ((), (), run.status)


def test_somebody_elses_finalizers_stay(cluster: Make) -> None:
    run = cluster(retention="Delete")
    run.resource["metadata"]["finalizers"] = ["example.com/other"]
    ((key, patch),) = run.decide().change
    assert key == key_of_object(run.resource)
    assert patch == {"metadata": {"finalizers": ["example.com/other", FINALIZER], "resourceVersion": "1"}}
