"""A document that goes: what goes with it, and that nothing can keep it for ever."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from kindling_operator.children import key_of_object

Make = Callable[..., Any]
FINALIZER = "kindling.dev/retention"


def deleted(run: Any) -> None:
    run.delete(key_of_object(run.resource))


def cleanup(run: Any) -> Any:
    return next(item for key, item in run.objects.items() if key.name == "tiny-ptr-delete")


def test_a_document_whose_data_stays_has_no_finalizer_and_makes_nothing_once_deleted(cluster: Make) -> None:
    run = cluster()
    run.reconcile()
    assert "finalizers" not in run.resource["metadata"]
    run.resource["metadata"]["deletionTimestamp"] = "2026-05-01T12:00:00Z"
    run.objects.clear()
    plan = run.reconcile()
    assert (plan.create, plan.delete, plan.status) == ((), (), run.status)


def test_data_that_is_not_to_stay_is_deleted_by_a_job_after_the_pods_have_ended(cluster: Make) -> None:
    run = cluster(retention="Delete")
    run.run()
    assert run.resource["metadata"]["finalizers"] == [FINALIZER]
    pods = run.pods
    deleted(run)
    run.enact(run.decide())
    assert not [key for key in run.objects if key.name == "tiny-ptr-1" and key.kind == "Job"]
    run.pods = pods
    assert run.reconcile().again_after == 5
    run.pods = []
    run.reconcile()
    command = cleanup(run)["spec"]["template"]["spec"]["containers"][0]["command"]
    assert f"--prefix=models/{run.status['key'].removeprefix('sha256:')[:16]}" in command
    assert not run.gone
    cleanup(run)["status"] = {"conditions": [{"type": "Complete", "status": "True"}]}
    run.reconcile()
    assert run.gone


@pytest.mark.parametrize("ending", ["Failed", None], ids=["it fails", "it never ends"])
def test_a_clean_up_that_does_not_work_does_not_keep_the_document(cluster: Make, ending: str | None) -> None:
    run = cluster(retention="Delete")
    run.run()
    deleted(run)
    run.reconcile()
    if ending:
        cleanup(run)["status"] = {"conditions": [{"type": ending, "status": "True"}]}
    else:
        run.wait(301)
    run.reconcile()
    assert run.gone
    assert run.events[-1].reason == "CleanUpFailed"
    assert "s3://llm/models/" in run.events[-1].message


def test_a_document_of_which_nothing_was_made_goes_at_once(cluster: Make) -> None:
    run = cluster(retention="Delete", suspend=True)
    run.resource["metadata"]["finalizers"] = ["example.com/other", FINALIZER]
    run.reconcile()
    deleted(run)
    run.enact(run.decide())
    assert run.resource["metadata"]["finalizers"] == ["example.com/other"]


@pytest.mark.parametrize("kind", ["DatasetBuild", "AlignmentRun"])
def test_a_run_whose_process_names_its_folder_deletes_that_of_its_result(cluster: Make, kind: str) -> None:
    run = cluster(kind, retention="Delete")
    run.run()
    run.succeeds()
    run.reconcile()
    folder = "/".join(run.status["result"]["uri"].split("/")[-2:])
    assert folder != f"models/{run.status['key'].removeprefix('sha256:')[:16]}"
    deleted(run)
    (job,) = run.decide().create
    assert f"--prefix={folder}" in job["spec"]["template"]["spec"]["containers"][0]["command"]


def test_somebody_elses_finalizers_stay(cluster: Make) -> None:
    run = cluster(retention="Delete")
    run.resource["metadata"]["finalizers"] = ["example.com/other"]
    ((key, patch),) = run.decide().change
    assert key == key_of_object(run.resource)
    assert patch == {"metadata": {"finalizers": ["example.com/other", FINALIZER], "resourceVersion": "1"}}
