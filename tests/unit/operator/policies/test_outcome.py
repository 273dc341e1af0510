"""How attempts end, and what is made of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

Make = Callable[..., Any]
Story = Callable[[Any], None]

LOST_CONTACT = {"message": "lost contact with the others", "exitCode": None}


def killed(run: Any) -> None:
    run.fails(1, rank=3, signal="SIGKILL", exitCode=None, message="process 3 was ended by SIGKILL")


def out_of_memory(run: Any) -> None:
    run.ends(1, 137, reason="OOMKilled")


def out_of_memory_and_told(run: Any) -> None:
    run.ends(1, 1, {"state": "Failed", "failure": {"reason": "RankFailed", "message": "x", "rank": 5}}, "OOMKilled")


def lost_contact_before_the_cause(run: Any) -> None:
    run.fails(0, **LOST_CONTACT)
    killed(run)


def node_lost(run: Any) -> None:
    run.loses(1)


def node_lost_and_contact_lost(run: Any) -> None:
    run.fails(0, **LOST_CONTACT)
    run.loses(1)


def evicted(run: Any) -> None:
    for index in (0, 1):
        run.loses(index, "EvictionByEvictionAPI")
        run.fails(index, code=143, reason="SuspendedByUser", message="Stopped.")


def preempted(run: Any) -> None:
    run.loses(0, "PreemptionByScheduler", grace=0)


def asked_to_stop(run: Any) -> None:
    for index in (0, 1):
        run.fails(index, code=143, reason="SuspendedByUser", message="Stopped.")


def node_full(run: Any) -> None:
    run.pod(1)["status"] = {"phase": "Failed", "reason": "OutOfcpu", "message": "Node didn't have enough resource"}


def over_its_own_limits(run: Any) -> None:
    run.pod(1)["status"] = {"phase": "Failed", "reason": "Evicted", "message": "Usage of EmptyDir exceeds the limit"}


def store_away(run: Any) -> None:
    run.fails(0, reason="StorageUnreachable", message="s3://llm does not answer")


def refused_at_once(run: Any) -> None:
    run.fails(0, code=2, reason="UserError", refused=True, message="found InvalidAccessKeyId")


def key_withdrawn(run: Any) -> None:
    run.fails(0, reason="StorageUnreachable", refused=True, message="found ExpiredToken")


def after_a_checkpoint(story: Story) -> Story:
    def told(run: Any) -> None:
        run.says(30, saved=20)
        run.reconcile()
        story(run)

    return told


def held_by_another_run(run: Any) -> None:
    run.fails(0, reason="HeldElsewhere", message="found held by process 7", exitCode=2)


def python_error(run: Any) -> None:
    run.fails(0, reason="InternalError", message="KeyError: 'x'", rank=0)


def launcher_saw_a_hang(run: Any) -> None:
    run.fails(0, reason="Hung", message="no step for 300 seconds", exitCode=None)


def given_another_run_file(run: Any) -> None:
    run.fails(0, reason="WrongRunFile", message="run.json: found the run file of PretrainRun/team/tiny with UID uid-9")


def no_last_word(run: Any) -> None:
    run.ends(1, 134, "Fatal Python error: Aborted")


def a_word_without_a_failure(run: Any) -> None:
    run.ends(1, 134, {"state": "Running", "message": "step 7 of 100"})


def no_container(run: Any) -> None:
    run.pod(1)["status"] = {"phase": "Failed", "message": "its node has no such runtime"}


def all_pods_gone(run: Any) -> None:
    run.pods = []
    run.job_ends()
    run.wait(6)


CAUSES: list[tuple[str, Story, str, bool, str]] = [
    ("a rank that was killed", killed, "RankFailed", True, "process 3 was ended by SIGKILL (pod tiny-ptr-uid-0-1-1"),
    ("a pod out of memory", out_of_memory, "OutOfMemory", True, "Raise the memory in spec.resources"),
    ("a rank out of memory, as the pod tells too", out_of_memory_and_told, "OutOfMemory", True, "on node-2 ran out"),
    ("the cause, not the first consequence", lost_contact_before_the_cause, "RankFailed", True, "process 3"),
    ("a lost node", node_lost, "NodeLost", False, "on node-2 was taken away: because of DeletionByTaintManager"),
    ("a lost node, and what its peers saw", node_lost_and_contact_lost, "NodeLost", False, "on node-2"),
    ("an eviction", evicted, "Evicted", False, "because of EvictionByEvictionAPI"),
    ("a pre-emption", preempted, "Evicted", False, "because of PreemptionByScheduler"),
    ("pods that were asked to stop", asked_to_stop, "Evicted", False, "was asked to stop, and did"),
    ("a node that had no room after all", node_full, "Evicted", False, "Node didn't have enough resource"),
    ("a pod that used more than its own limits", over_its_own_limits, "Evicted", True, "EmptyDir exceeds"),
    ("a store that does not answer", store_away, "StorageUnreachable", False, "s3://llm does not answer"),
    ("a changed key", after_a_checkpoint(refused_at_once), "StorageUnreachable", False, "found InvalidAccessKeyId"),
    ("a key that has ended", after_a_checkpoint(key_withdrawn), "StorageUnreachable", False, "found ExpiredToken"),
    ("another run at the same place", held_by_another_run, "HeldElsewhere", False, "held by process 7"),
    ("another document's run file", given_another_run_file, "WrongRunFile", False, "the run file of PretrainRun"),
    ("a Python error", python_error, "InternalError", True, "KeyError"),
    ("a hang seen by the launcher", launcher_saw_a_hang, "Hung", True, "no step for 300 seconds"),
    ("a death without a last word", no_last_word, "RankFailed", True, "Its last lines: Fatal Python error"),
    ("a death after a word of progress", a_word_without_a_failure, "RankFailed", True, "left no word why."),
    ("a pod that failed before it had a container", no_container, "RankFailed", True, "failed and left no word why."),
    ("pods that are gone without a trace", all_pods_gone, "Evicted", False, "was deleted"),
]


@pytest.mark.parametrize(
    ("story", "reason", "counts", "words"), [row[1:] for row in CAUSES], ids=[r[0] for r in CAUSES]
)
def test_a_failure_is_told_with_its_cause_and_another_attempt_starts_at_once(
    cluster: Make, story: Story, reason: str, counts: bool, words: str
) -> None:
    run = cluster()
    run.run()
    story(run)
    run.reconcile()
    failure, status = run.status["lastFailure"], run.status
    assert (failure["reason"], failure["attempt"]) == (reason, 1)
    assert words in failure["message"]
    assert status["restarts"] == int(counts)
    assert (status["phase"], status["attempt"], run.made) == ("Restarting", 2, ["tiny-ptr-uid-0-1", "tiny-ptr-uid-0-2"])
    assert run.said("Restarting") == ("True", reason)
    run.schedule()
    run.reconcile()
    assert (run.status["phase"], run.said("Restarting")) == ("Running", ("False", "Started"))


def test_rank_exit_code_and_signal_of_the_failure_are_in_the_status(cluster: Make) -> None:
    run = cluster()
    run.run()
    killed(run)
    run.reconcile()
    failure = run.status["lastFailure"]
    assert (failure["rank"], failure["signal"], failure["pod"]) == (3, "SIGKILL", run.status["lastFailure"]["pod"])
    assert failure["pod"].startswith("tiny-ptr-uid-0-1-1-")


@pytest.mark.parametrize("last_word", [True, False], ids=["told", "by its exit code"])
def test_the_users_mistakes_are_not_tried_again(cluster: Make, last_word: bool) -> None:
    run = cluster()
    run.run()
    if last_word:
        run.fails(0, code=2, reason="UserError", message="s3://llm/datasets: no such bucket")
    else:
        run.ends(0, 2)
    run.reconcile()
    assert (run.status["phase"], run.said("Failed"), len(run.made)) == ("Failed", ("True", "UserError"), 1)
    assert run.job["kind"] == "Job", "it stays for its logs"


def test_a_key_that_never_worked_is_the_users_mistake(cluster: Make) -> None:
    run = cluster()
    run.run()
    refused_at_once(run)
    run.reconcile()
    assert (run.status["phase"], run.said("Failed"), len(run.made)) == ("Failed", ("True", "UserError"), 1)
    assert run.status["lastFailure"]["refused"] is True
    assert "in a row" not in run.message("Failed")


def got_on(run: Any) -> None:
    run.says(3)
    run.reconcile()


def once_more_after(story: Story) -> Story:
    def told(run: Any) -> None:
        story(run)
        run.reconcile()
        run.wait(400)
        run.reconcile()
        run.schedule()
        run.reconcile()

    return told


@pytest.mark.parametrize(
    ("before", "goes_on"),
    [
        (lambda _: None, False),
        (once_more_after(store_away), False),
        (got_on, True),
        (once_more_after(evicted), True),
        (once_more_after(key_withdrawn), True),
    ],
    ids=["nothing", "an attempt without a store", "a step", "an attempt that ran", "an attempt refused later on"],
)
def test_what_came_before_tells_a_changed_key_from_a_wrong_one(cluster: Make, before: Story, goes_on: bool) -> None:
    run = cluster()
    run.run()
    before(run)
    refused_at_once(run)
    run.reconcile()
    expected = ("Restarting", "StorageUnreachable") if goes_on else ("Failed", "UserError")
    assert (run.status["phase"], run.status["lastFailure"]["reason"]) == expected
    assert run.status["restarts"] == 0


@pytest.mark.parametrize(
    ("kind", "saved"), [("PretrainRun", None), ("DatasetBuild", None), ("AlignmentRun", None), ("PretrainRun", 30)]
)
def test_a_key_that_stays_wrong_ends_the_run_after_nine_attempts_in_vain_over_a_quarter_of_an_hour(
    cluster: Make, kind: str, saved: int | None
) -> None:
    run = cluster(kind)
    run.run()
    if saved:
        run.says(saved, saved=saved)
        run.reconcile()
    key_withdrawn(run)
    if saved:  # the next attempt follows at once
        run.reconcile()
        run.schedule()
        refused_at_once(run)
    waits = []
    while (wait := run.reconcile().requeue_after) is not None and run.status["phase"] != "Failed":
        waits.append(wait)
        run.wait(wait)
        run.reconcile()
        run.schedule()
        refused_at_once(run)
    assert waits == [5, 10, 20, 40, 80, 160, 300, 300]
    assert (run.said("Failed"), run.status["restarts"]) == (("True", "UserError"), 0)
    assert len(run.made) == 9 + bool(saved), "the attempt that saved something was not in vain"
    assert "9 attempts in a row were refused, each with the Secret as it was then." in run.message("Failed")


def test_a_key_that_ends_once_an_hour_never_ends_the_run(cluster: Make) -> None:
    run = cluster()
    run.run()
    for hour in range(30):
        run.says(hour + 1, saved=hour + 1)
        run.reconcile()
        run.wait(3600)
        run.says(hour + 1, saved=hour + 1, stage="saving")
        key_withdrawn(run)
        run.reconcile()
        assert run.status["phase"] == "Restarting"
        run.wait(1)
        run.reconcile()
        run.schedule()
        run.reconcile()
    assert (len(run.made), run.status["phase"]) == (31, "Running")


def test_while_only_consequences_are_known_the_cause_is_waited_for(cluster: Make) -> None:
    run = cluster()
    run.run()
    run.fails(0, **LOST_CONTACT)
    assert (run.reconcile().requeue_after, run.status["attempt"]) == (1, 1)
    run.wait(30)
    run.reconcile()
    assert "lastFailure" not in run.status, "the node of the other pod may be gone, which is told later"
    run.wait(31)
    run.reconcile()
    assert run.status["lastFailure"]["reason"] == "RankFailed"
    assert run.status["restarts"] == 1


def test_a_node_that_is_lost_is_the_cause_for_those_that_lost_contact_before_it_was_told(cluster: Make) -> None:
    run = cluster()
    run.run()
    run.fails(0, **LOST_CONTACT)
    run.reconcile()
    run.wait(40)
    run.loses(1, "DeletionByTaintManager")
    run.reconcile()
    assert (run.status["lastFailure"]["reason"], run.status["restarts"]) == ("NodeLost", 0)


def test_pods_that_are_asked_to_stop_may_save_before_the_next_attempt(cluster: Make) -> None:
    run = cluster()
    run.run()
    for index in (0, 1):
        run.loses(index, "EvictionByEvictionAPI", grace=75)
    run.reconcile()
    assert (run.status["attempt"], "lastFailure" in run.status) == (1, False)
    run.wait(76)
    run.reconcile()
    assert run.status["attempt"] == 2


def test_restarts_are_exhausted_but_not_by_evictions(cluster: Make) -> None:
    run = cluster()
    run.run()
    for count in range(4):
        for story in (evicted, killed):
            assert run.status["phase"] == "Running"
            story(run)
            run.reconcile()
            run.wait(400)
            run.reconcile()
            if run.status["phase"] != "Failed":
                run.schedule()
                run.reconcile()
        assert run.status["restarts"] == min(3, count + 1)
    assert run.said("Failed") == ("True", "RestartsExhausted")
    assert "3 restarts are all that restart.maxRestarts allows" in run.message("Failed")
    assert len(run.status["attempts"]) == 8


def test_the_same_error_three_times_in_a_row_is_enough(cluster: Make) -> None:
    run = cluster(restart={"maxRestarts": 100})
    run.run()
    for _ in range(3):
        python_error(run)
        run.reconcile()
        run.wait(60)
        run.reconcile()
        if run.status["phase"] != "Failed":
            run.schedule()
            run.reconcile()
    assert run.said("Failed") == ("True", "InternalError")
    assert "3 attempts in a row ended like this" in run.message("Failed")


def test_ten_attempts_are_remembered(cluster: Make) -> None:
    run = cluster()
    run.run()
    for _ in range(12):
        evicted(run)
        run.reconcile()
        run.wait(400)
        run.reconcile()
        run.schedule()
        run.reconcile()
    assert [attempt["attempt"] for attempt in run.status["attempts"]] == list(range(4, 14))


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


@pytest.mark.parametrize(
    ("kind", "said", "figures"),
    [
        ("PretrainRun", {"training": {"stage": "saving", "step": 99, "loss": 2.5}}, {"step": 100, "loss": 2.5}),
        ("DatasetBuild", {"dataset": {"stage": "writing", "documents": 70}}, {"documents": 70}),
    ],
)
def test_the_last_figures_are_those_of_the_last_word(
    cluster: Make, kind: str, said: dict[str, Any], figures: dict[str, Any]
) -> None:
    run = cluster(kind)
    run.run()
    run.says(50, dataset={"stage": "reading", "documents": 12})
    run.reconcile()
    run.succeeds(**said)
    run.reconcile()
    progress = run.status["progress"]
    assert (progress["stage"], progress["percent"]) == (next(iter(said.values()))["stage"], 100)
    assert figures.items() <= progress.items()


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
    assert (build.status["phase"], build.status["result"]["tokens"], build.made) == (
        "Succeeded",
        5,
        ["tiny-dsb-uid-0-1"],
    )


def test_a_ray_job_ends_as_kuberay_says_and_its_submitter_tells(cluster: Make) -> None:
    build = cluster("DatasetBuild", engine={"workers": 2})
    build.run()
    assert build.status["phase"] == "Running"
    build.succeeds()
    build.job["status"] = {"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}
    build.reconcile()
    assert build.status["phase"] == "Succeeded"
