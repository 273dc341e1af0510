"""What is decided about a document, told as stories: something happens to it, and so it is said and done."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from kindling_api.references import Reference
from kindling_api.resolve import Finished
from kindling_operator.moments import stamp
from kindling_operator.settings import Images
from kindling_operator.world import Referred

Make = Callable[..., Any]
Story = Callable[[Any], None]

WEB = Reference("DatasetBuild", "team", "web")
DATASET = Finished("s3://llm/datasets/web", "sha256:" + 64 * "1")
NAMED = {"dataset": {"name": "web"}}


def notes(cluster: Any) -> list[str]:
    return [note.reason for note in cluster.events]


def test_a_run_is_told_from_its_first_word_to_its_last(cluster: Make) -> None:
    run = cluster()
    run.run()
    run.wait(10)
    run.says(30, saved=20, message="training")
    run.reconcile()
    assert (run.status["phase"], run.status["progress"]["percent"], run.status["checkpoint"]["step"]) == (
        "Running", 30.0, 20,
    )  # fmt: skip
    run.wait(10)
    run.succeeds()
    run.reconcile()
    assert run.status["phase"] == "Succeeded"
    assert run.status["result"]["uri"] == "s3://llm/models/1"
    assert run.status["progress"]["step"] == run.status["result"]["steps"] == 100
    assert run.status["completionTime"] == stamp(run.now)
    assert notes(run) == ["Accepted", "AttemptStarted", "Checkpointed", "Succeeded"]
    assert run.made == ["tiny-ptr-1"]


def test_the_number_of_an_attempt_is_written_before_anything_of_it_is_made(cluster: Make) -> None:
    run = cluster()
    first = run.decide()
    assert (first.status["attempt"], first.create, first.apply, first.again_after) == (1, (), (), 0)
    run.enact(first)
    second = run.decide()
    assert [item["kind"] for item in (*second.apply, *second.create)] == [
        "Service",
        "NetworkPolicy",
        "ConfigMap",
        "Job",
    ]
    assert second.status["attempt"] == 1


@pytest.mark.parametrize(
    ("spec", "reason", "words"),
    [
        ({"model": {"preset": "none-such"}}, "InvalidSpec", "none-such"),
        ({"image": "evil.example.com/x"}, "InvalidSpec", "begins with registry.example.com/ml/"),
        ({"storage": {"uri": "file:///tmp"}}, "InvalidSpec", "s3://bucket/prefix"),
        ({"resources": {"nodes": 16}, "name": 52 * "a"}, "NameTooLong", "at most 51 characters"),
        ({"name": 53 * "a"}, "NameTooLong", "metadata.name"),
    ],
)
def test_a_document_that_cannot_be_run_is_refused_with_what_to_change(
    cluster: Make, spec: dict[str, Any], reason: str, words: str
) -> None:
    run = cluster(**spec)
    run.reconcile()
    assert run.said("Accepted") == ("False", reason)
    assert words in run.message("Accepted")
    assert (run.status["phase"], run.status["attempt"], notes(run)) == ("Failed", 0, [reason])


def test_without_any_store_a_run_is_refused_until_there_is_one(cluster: Make) -> None:
    run = cluster()
    settings, run.settings = run.settings, run.settings.model_copy(update={"storage": None})
    run.reconcile()
    assert run.said("Accepted") == ("False", "InvalidSpec")
    run.settings = settings
    run.reconcile()
    assert (run.said("Accepted"), run.status["attempt"]) == (("True", "Valid"), 1)


def test_a_run_that_was_accepted_stays_so_when_the_installation_changes(cluster: Make) -> None:
    run = cluster(image="registry.example.com/ml/trainer:7")
    run.run()
    run.settings = run.settings.model_copy(update={"images": Images(trainer="t", dataprep="d", serve="s")})
    run.reconcile()
    assert run.status["phase"] == "Running"


@pytest.mark.parametrize(
    ("there", "reason", "words"),
    [
        ({}, "NotFound", "there is no DatasetBuild/web in this namespace. Create it"),
        ({WEB: Referred("Running")}, "Building", "Waits for DatasetBuild/web, which is Running"),
        ({WEB: Referred("Failed", message="no records.")}, "ReferenceFailed", "has failed: no records. Delete"),
    ],
)
def test_a_run_waits_for_what_it_refers_to_and_starts_by_itself(
    cluster: Make, there: dict[Reference, Referred], reason: str, words: str
) -> None:
    run = cluster(**NAMED)
    run.references = there
    run.reconcile()
    assert (run.status["phase"], run.said("DatasetReady")) == ("Waiting", ("False", reason))
    assert words in run.message("DatasetReady")
    run.references = {WEB: Referred("Succeeded", DATASET)}
    run.reconcile()
    assert run.said("DatasetReady") == ("True", "Ready")
    assert run.status["inputs"] == [{"field": "spec.dataset", "uri": DATASET.uri, "digest": DATASET.digest}]
    assert run.made == ["tiny-ptr-1"]
    assert notes(run) == ["Accepted", "Waiting"]


def test_a_name_that_two_finished_runs_have_is_not_guessed_at(cluster: Make) -> None:
    run = cluster(initialize={"from": {"name": "base"}})
    for kind in ("PretrainRun", "AlignmentRun"):
        run.references[Reference(kind, "team", "base")] = Referred("Succeeded", DATASET)
    run.reconcile()
    assert run.said("BaseReady") == ("False", "InvalidSpec")
    assert "add" not in run.made


def test_an_alignment_waits_for_the_model_that_judges_its_answers(cluster: Make) -> None:
    judge = {"name": "judge", "kind": "AlignmentRun"}
    run = cluster("AlignmentRun", evaluation={"prompts": ["Who are you?"], "judge": judge})
    run.reconcile()
    assert (run.status["phase"], run.said("BaseReady")) == ("Waiting", ("False", "NotFound"))
    run.references = {Reference("AlignmentRun", "team", "judge"): Referred("Succeeded", DATASET)}
    run.reconcile()
    assert run.said("BaseReady") == ("True", "Ready")
    assert run.status["inputs"][1] == {"field": "spec.evaluation.judge", "uri": DATASET.uri, "digest": DATASET.digest}


def test_a_run_keeps_to_the_inputs_with_which_it_started(cluster: Make) -> None:
    run = cluster(**NAMED)
    run.references = {WEB: Referred("Succeeded", DATASET)}
    run.run()
    key = run.status["key"]
    run.references = {}
    run.fails(0, signal="SIGKILL")
    run.reconcile()
    assert (run.status["attempt"], run.status["key"], len(run.made)) == (2, key, 2)


def test_a_build_with_workers_waits_for_kuberay_and_says_so(cluster: Make) -> None:
    build = cluster("DatasetBuild", engine={"workers": 2})
    build.ray_installed = False
    build.reconcile()
    assert (build.said("Running"), build.status["phase"]) == (("False", "EngineMissing"), "Waiting")
    assert "Install the KubeRay operator" in build.message("Running")
    build.ray_installed = True
    build.reconcile()
    assert [item["kind"] for item in build.objects.values()] == ["NetworkPolicy", "ConfigMap", "RayJob"]


def test_suspending_stops_the_pods_and_resuming_goes_on_in_another_attempt(cluster: Make) -> None:
    run = cluster()
    run.run()
    run.edit(suspend=True)
    run.reconcile()
    assert (run.status["phase"], run.said("Suspended"), run.objects) == ("Suspended", ("True", "SuspendedByUser"), {})
    assert "startTime" not in run.status
    run.edit(suspend=False)
    run.reconcile()
    assert (run.said("Suspended"), run.status["attempt"], run.made) == (
        ("False", "Resumed"), 2, ["tiny-ptr-1", "tiny-ptr-2"],
    )  # fmt: skip
    assert run.status["restarts"] == 0


def test_a_run_that_is_suspended_from_the_start_makes_nothing(cluster: Make) -> None:
    run = cluster(suspend=True)
    run.reconcile()
    assert (run.status["phase"], run.status["attempt"], run.said("Accepted")) == ("Suspended", 0, ("True", "Valid"))


def test_after_a_suspension_the_pods_that_save_are_waited_for(cluster: Make) -> None:
    run = cluster()
    run.run()
    leaving = run.pod()
    run.edit(suspend=True)
    run.reconcile()
    leaving["metadata"]["deletionTimestamp"] = stamp(run.now.replace(minute=1))
    run.pods = [leaving]
    run.edit(suspend=False)
    assert (run.reconcile().again_after, run.status["attempt"]) == (60, 1)
    run.pods = []
    run.reconcile()
    assert run.status["attempt"] == 2


def test_kueue_admits_a_job_and_may_take_it_back_and_nobody_else_touches_it(cluster: Make) -> None:
    run = cluster(queue="team-a", activeDeadline="1h")
    run.reconcile()
    assert (run.status["phase"], run.said("Queued")) == ("Queued", ("True", "WaitingForAdmission"))
    run.wait(7200)
    assert run.reconcile().change == ()
    run.job["spec"]["suspend"] = False
    run.schedule()
    run.reconcile()
    assert (run.status["phase"], run.said("Queued"), run.status["startTime"]) == (
        "Running", ("False", "Admitted"), stamp(run.now),
    )  # fmt: skip
    run.job["spec"]["suspend"] = True
    for index in (0, 1):
        run.loses(index, "EvictionByEvictionAPI")
    run.reconcile()
    assert (run.status["phase"], run.status["attempt"], "startTime" in run.status) == ("Queued", 1, False)


def test_another_queue_takes_effect_while_the_first_one_has_not_admitted_the_run(cluster: Make) -> None:
    run = cluster(queue="team-a")
    run.reconcile()
    run.edit(queue="team-b")
    run.reconcile()
    assert (run.made, run.status["restarts"]) == (["tiny-ptr-1", "tiny-ptr-2"], 0)
    assert run.job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team-b"


def test_a_deadline_ends_a_run_over_all_of_its_attempts(cluster: Make) -> None:
    run = cluster(activeDeadline="1h")
    run.run()
    assert run.reconcile().again_after == 3600
    run.wait(1800)
    run.loses(1)
    run.reconcile()
    run.wait(1800)
    run.reconcile()
    assert (run.status["phase"], run.said("Failed")) == ("Failed", ("True", "DeadlineExceeded"))
    assert [key.kind for key in run.objects] == []


def test_a_finished_run_is_deleted_after_its_time_and_not_before(cluster: Make) -> None:
    run = cluster(ttlAfterFinished="1h")
    run.run()
    run.succeeds()
    assert run.reconcile().again_after == 3600
    run.wait(3599)
    run.reconcile()
    assert not run.gone
    run.wait(1)
    run.reconcile()
    assert run.gone


@pytest.mark.parametrize("finished", [True, False], ids=["succeeded", "failed"])
def test_what_is_final_stays_so_whatever_happens_to_its_job(cluster: Make, finished: bool) -> None:
    run = cluster()
    run.run()
    if finished:
        run.succeeds()
    else:
        run.fails(0, code=2, reason="UserError")
    run.reconcile()
    phase = run.status["phase"]
    run.delete(run.job_key)
    run.edit(suspend=True)
    run.reconcile()
    assert (run.status["phase"], len(run.made)) == (phase, 1)


def test_a_job_that_somebody_deletes_is_replaced_at_no_charge(cluster: Make) -> None:
    run = cluster()
    run.run()
    run.delete(run.job_key)
    run.reconcile()
    assert (run.made, run.status["restarts"], run.status["attempts"][0]["reason"]) == (
        ["tiny-ptr-1", "tiny-ptr-2"], 0, "Evicted",
    )  # fmt: skip


def test_a_status_that_was_lost_does_not_bring_back_old_numbers(cluster: Make) -> None:
    run = cluster()
    run.run()
    run.fails(0, signal="SIGKILL")
    run.reconcile()
    run.resource["status"] = {}
    run.reconcile()
    assert (run.status["attempt"], run.made) == (2, ["tiny-ptr-1", "tiny-ptr-2"])


def test_children_of_an_earlier_document_of_the_same_name_are_not_this_ones(cluster: Make) -> None:
    run = cluster()
    run.run()
    run.resource["metadata"]["uid"] = "uid-new"
    run.resource["status"] = {}
    assert run.decide().status["attempt"] == 1
    assert run.decide().delete == ()


def test_a_success_whose_last_word_is_lost_is_asked_for_again(cluster: Make) -> None:
    run = cluster()
    run.run()
    run.job_ends("Complete")
    run.pods = []
    run.reconcile()
    assert run.status["attempt"] == 1
    run.wait(6)
    run.reconcile()
    assert (run.status["attempt"], run.status["attempts"][0]["reason"]) == (2, "InternalError")


def test_a_last_word_of_success_counts_even_if_another_pod_fails_on_leaving(cluster: Make) -> None:
    run = cluster()
    run.run()
    run.succeeds()
    run.ends(1, 134)
    run.job_ends("Failed")
    run.reconcile()
    assert run.status["phase"] == "Succeeded"


def test_a_build_tells_documents_and_ends_with_its_result(cluster: Make) -> None:
    build = cluster("DatasetBuild")
    build.run()
    build.says(0, dataset={"stage": "minHash", "percent": 62.0, "documents": 12})
    build.reconcile()
    assert build.status["progress"] == {
        "stage": "minHash", "percent": 62.0, "documents": 12, "documentsPerSecond": 0.0,
    }  # fmt: skip
    build.succeeds()
    build.reconcile()
    assert (build.status["phase"], build.status["result"]["tokens"], build.made) == ("Succeeded", 5, ["tiny-dsb-1"])


def test_a_ray_job_ends_as_kuberay_says_and_its_submitter_tells(cluster: Make) -> None:
    build = cluster("DatasetBuild", engine={"workers": 2})
    build.run()
    assert build.status["phase"] == "Running"
    build.succeeds()
    build.job["status"] = {"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}
    build.reconcile()
    assert build.status["phase"] == "Succeeded"


def test_figures_that_are_none_do_not_reach_the_api_server(cluster: Make) -> None:
    run = cluster()
    run.run()
    run.says(3, training={"stage": "training", "step": 3, "loss": float("nan"), "tokensPerSecond": float("inf")})
    run.reconcile()
    assert "loss" not in run.status["progress"]


def test_progress_that_says_the_same_changes_nothing(cluster: Make) -> None:
    run = cluster()
    run.run()
    run.says(3, training={"stage": "training", "step": 3, "goodput": 0.9})
    run.reconcile()
    before = run.status
    run.wait(5)
    run.says(3, training={"stage": "training", "step": 3, "goodput": 0.9})
    assert run.decide().status == before


def test_goodput_counts_over_attempts_what_was_lost_between_and_behind(cluster: Make) -> None:
    run = cluster()
    run.run()
    run.wait(100)
    run.says(50, saved=25, training={"stage": "training", "step": 50, "goodput": 1.0})
    run.reconcile()
    assert run.status["progress"]["goodput"] == 1.0
    run.fails(0, signal="SIGKILL")
    run.reconcile()
    assert run.status["attempts"][0]["productiveSeconds"] == 50.0
    run.schedule()
    run.reconcile()
    run.wait(100)
    run.says(75, saved=50, training={"stage": "training", "step": 75, "goodput": 1.0})
    run.reconcile()
    assert run.status["progress"]["goodput"] == 0.75


def test_storage_that_is_away_is_told_at_once_and_hangs_nothing(cluster: Make) -> None:
    run = cluster()
    run.run()
    trouble = {"trouble": "StorageUnreachable", "message": "s3://llm does not answer; trying again."}
    run.says(30, **trouble)
    run.reconcile()
    assert (run.status["phase"], run.said("Running")) == ("Running", ("True", "StorageUnreachable"))
    assert run.message("Running") == trouble["message"]
    run.wait(3600)
    run.reconcile()
    run.says(30)
    assert run.reconcile().again_after == 360
    assert (run.status["attempt"], run.said("Running")) == (1, ("True", "Started"))
