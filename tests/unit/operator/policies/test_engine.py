"""A build with workers waits for KubeRay, and a run with a queue for Kueue."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Make = Callable[..., Any]


def test_a_build_with_workers_waits_for_kuberay_and_says_so(cluster: Make) -> None:
    build = cluster("DatasetBuild", engine={"workers": 2})
    build.ray_installed = False
    build.reconcile()
    assert (build.said("Running"), build.status["phase"]) == (("False", "EngineMissing"), "Waiting")
    assert "Install the KubeRay operator" in build.message("Running")
    build.ray_installed = True
    build.reconcile()
    assert [item["kind"] for item in build.objects.values()] == ["NetworkPolicy", "ConfigMap", "RayJob"]


def test_a_run_with_a_queue_waits_for_kueue_and_says_so(cluster: Make) -> None:
    run = cluster(queue="team-a")
    run.kueue_installed = False
    assert run.reconcile().requeue_after == 15
    assert (run.said("Running"), run.status["phase"]) == (("False", "KueueMissing"), "Waiting")
    assert "spec.queue is team-a" in run.message("Running") and "Install Kueue" in run.message("Running")
    assert (run.made, [event.reason for event in run.events]) == ([], ["Accepted", "KueueMissing"])
    run.kueue_installed = True
    run.reconcile()
    assert (run.status["phase"], run.said("Queued")) == ("Queued", ("True", "WaitingForAdmission"))


def test_a_run_that_no_longer_asks_for_a_queue_starts_without_kueue(cluster: Make) -> None:
    run = cluster(queue="team-a")
    run.kueue_installed = False
    run.reconcile()
    run.edit(queue=None)
    run.reconcile()
    assert run.made == ["tiny-ptr-uid-0-1"]


def test_a_run_that_waits_while_kueue_goes_is_no_longer_said_to_be_in_a_queue(cluster: Make) -> None:
    run = cluster(queue="team-a")
    run.reconcile()
    run.kueue_installed = False
    run.reconcile()
    assert (run.status["phase"], run.said("Queued")) == ("Waiting", ("False", "KueueMissing"))


def test_a_run_that_was_admitted_goes_on_when_kueue_goes(cluster: Make) -> None:
    run = cluster(queue="team-a")
    run.reconcile()
    run.job["spec"]["suspend"] = False
    run.schedule()
    run.kueue_installed = False
    run.reconcile()
    assert run.status["phase"] == "Running"
    run.succeeds()
    run.reconcile()
    assert run.status["phase"] == "Succeeded"
