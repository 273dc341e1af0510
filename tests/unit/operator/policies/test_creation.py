"""The objects of an attempt are made once, after its number is in the status."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Make = Callable[..., Any]


def test_the_number_of_an_attempt_is_written_before_anything_of_it_is_made(cluster: Make) -> None:
    run = cluster()
    first = run.decide()
    assert (first.status["attempt"], first.create, first.apply, first.requeue_after) == (1, (), (), 0)
    run.apply(first)
    second = run.decide()
    assert [item["kind"] for item in (*second.apply, *second.create)] == [
        "Service",
        "NetworkPolicy",
        "ConfigMap",
        "Job",
    ]
    assert second.status["attempt"] == 1


def test_a_job_that_somebody_deletes_is_replaced_at_no_charge(cluster: Make) -> None:
    run = cluster()
    run.run()
    run.delete(run.job_key)
    run.reconcile()
    assert (run.made, run.status["restarts"], run.status["attempts"][0]["reason"]) == (
        ["tiny-ptr-uid-0-1", "tiny-ptr-uid-0-2"], 0, "Evicted",
    )  # fmt: skip


def test_a_changed_template_of_pods_holds_from_the_next_attempt_on_and_changes_no_key(cluster: Make) -> None:
    run = cluster()
    run.run()
    key = run.status["key"]
    run.edit(podTemplate={"sharedMemory": "1Gi"})
    run.reconcile()
    assert size_of_shared_memory(run) is None
    run.delete(run.job_key)
    run.reconcile()
    assert (size_of_shared_memory(run), run.status["key"], run.status["attempt"]) == ("1Gi", key, 2)


def test_a_template_that_is_not_allowed_stops_no_attempt_and_starts_none_until_it_is_corrected(cluster: Make) -> None:
    run = cluster()
    run.run()
    run.edit(podTemplate={"serviceAccountName": "admin"})
    run.reconcile()
    assert run.said("Running") == ("True", "Started")
    run.delete(run.job_key)
    run.reconcile()
    assert (run.said("Running"), run.status["phase"]) == (("False", "CannotStart"), "Waiting")
    assert run.message("Running").startswith("spec.podTemplate.serviceAccountName: found admin; allowed: none")
    assert run.made == ["tiny-ptr-uid-0-1"]
    run.edit(podTemplate={})
    run.reconcile()
    assert run.made == ["tiny-ptr-uid-0-1", "tiny-ptr-uid-0-2"]


def size_of_shared_memory(run: Any) -> str | None:
    """As the Job has it."""
    volumes = {volume["name"]: volume for volume in run.job["spec"]["template"]["spec"]["volumes"]}
    size: str | None = volumes["shared-memory"]["emptyDir"].get("sizeLimit")
    return size
