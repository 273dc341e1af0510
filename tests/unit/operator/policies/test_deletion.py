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
    return next(item for key, item in run.objects.items() if key.name == "tiny-ptr-uid-0-delete")


def test_data_that_is_not_to_stay_is_deleted_by_a_job_after_the_pods_have_ended(cluster: Make) -> None:
    run = cluster(retention="Delete")
    run.run()
    assert run.resource["metadata"]["finalizers"] == [FINALIZER]
    pods = run.pods
    deleted(run)
    run.apply(run.decide())
    assert not [key for key in run.objects if key.name == "tiny-ptr-uid-0-1" and key.kind == "Job"]
    run.pods = pods
    assert run.reconcile().requeue_after == 5
    run.pods = []
    run.reconcile()
    command = cleanup(run)["spec"]["template"]["spec"]["containers"][0]["command"]
    assert f"--prefix=models/{run.status['key'].removeprefix('sha256:')[:16]}" in command
    assert not run.gone
    cleanup(run)["status"] = {"conditions": [{"type": "Complete", "status": "True"}]}
    run.reconcile()
    assert run.gone
    assert not [key for key in run.objects if key.kind == "Job"], "the clean-up goes, too"


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
    assert cleanup(run), "what it said can be looked at"
    assert run.events[-1].reason == "CleanUpFailed"
    assert "s3://llm/models/" in run.events[-1].message


def cleanup_pod(exit_code: int | None = None, said: str = "") -> Any:
    """The pod of the clean-up Job, as it ended; without an exit code, as it waits."""
    waits = {"waiting": {"reason": "ContainerCreating"}}
    ended = {"terminated": {"exitCode": exit_code, "message": said}}
    state, phase = (waits, "Pending") if exit_code is None else (ended, "Failed")
    status = {"phase": phase, "containerStatuses": [{"state": state}]}
    return {"metadata": {"name": "tiny-ptr-delete-x"}, "status": status}


def test_a_clean_up_that_finds_nothing_where_a_checkpoint_was_is_no_success(cluster: Make) -> None:
    run = cluster(retention="Delete")
    run.run()
    run.says(20, saved=10)
    run.reconcile()
    deleted(run)
    run.reconcile()
    assert "--must-exist" in cleanup(run)["spec"]["template"]["spec"]["containers"][0]["command"]
    run.pods_beside = [cleanup_pod(3, "s3://llm/models/0: found nothing")]
    run.reconcile()
    assert run.gone
    assert run.events[-1].reason == "CleanUpFailed"
    assert run.events[-1].message.endswith("and stays. s3://llm/models/0: found nothing")


def test_where_nothing_is_known_to_be_there_a_clean_up_may_find_nothing(cluster: Make) -> None:
    run = cluster(retention="Delete")
    run.run()
    deleted(run)
    run.reconcile()
    assert "--must-exist" not in cleanup(run)["spec"]["template"]["spec"]["containers"][0]["command"]


def test_a_clean_up_without_its_secret_says_which(cluster: Make) -> None:
    run = cluster(retention="Delete")
    run.run()
    deleted(run)
    run.reconcile()
    run.pods_beside = [cleanup_pod()]
    assert run.reconcile().requeue_after == 10, "warnings are not watched"
    run.fails_to_mount("tiny-ptr-delete-x")
    run.reconcile()
    assert run.said("Running") == ("False", "SecretMissing")
    assert run.events[-1].reason == "SecretMissing"
    run.wait(300)
    run.reconcile()
    assert run.gone
    assert "may stay. The Secret minio that tiny-ptr-delete-x needs is not there" in run.events[-1].message


def test_a_namespace_that_takes_no_clean_up_is_not_waited_for(cluster: Make) -> None:
    run = cluster(retention="Delete")
    run.run()
    deleted(run)
    run.apply(run.decide())
    run.pods = []
    about = {"kind": "Job", "name": "tiny-ptr-delete"}
    run.warnings = [{"reason": "NamespaceTerminating", "message": "forbidden", "involvedObject": about}]
    run.reconcile()
    assert run.gone
    assert run.events[-1].message.endswith("stays: the namespace is being deleted, and takes no clean-up Job.")


def test_data_of_a_storage_that_nobody_names_any_more_is_told_to_stay(cluster: Make) -> None:
    run = cluster(retention="Delete")
    run.run()
    del run.resource["status"]["storage"]
    run.settings = run.settings.model_copy(update={"storage": None})
    deleted(run)
    run.reconcile()
    assert run.gone
    assert "neither the document nor the installation names a storage by now" in run.events[-1].message


def test_a_document_of_which_nothing_was_made_goes_at_once(cluster: Make) -> None:
    run = cluster(retention="Delete", suspend=True)
    run.resource["metadata"]["finalizers"] = ["example.com/other", FINALIZER]
    run.reconcile()
    deleted(run)
    run.apply(run.decide())
    assert run.resource["metadata"]["finalizers"] == ["example.com/other"]


@pytest.mark.parametrize("kind", ["DatasetBuild", "PretrainRun", "AlignmentRun"])
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


@pytest.mark.parametrize(("account", "used"), [("reads-lake", "reads-lake"), ("admin", None)])
def test_a_clean_up_is_who_the_run_was_unless_that_is_not_allowed_any_more(
    cluster: Make, account: str, used: str | None
) -> None:
    run = cluster(retention="Delete")
    allow = run.settings.allow.model_copy(update={"service_accounts": ("reads-lake",)})
    run.settings = run.settings.model_copy(update={"allow": allow})
    run.run()
    run.edit(podTemplate={"serviceAccountName": account})
    deleted(run)
    run.reconcile()
    assert cleanup(run)["spec"]["template"]["spec"].get("serviceAccountName") == used
