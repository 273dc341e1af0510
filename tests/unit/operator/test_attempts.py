"""How attempts end, what is made of it, and when the next one begins."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from kindling_api.v1alpha1.status import AttemptStatus
from kindling_operator.attempts import barren, delay_seconds
from kindling_operator.moments import stamp

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


def held_by_another_run(run: Any) -> None:
    run.fails(0, reason="HeldElsewhere", message="found held by process 7", exitCode=2)


def python_error(run: Any) -> None:
    run.fails(0, reason="InternalError", message="KeyError: 'x'", rank=0)


def launcher_saw_a_hang(run: Any) -> None:
    run.fails(0, reason="Hung", message="no step for 300 seconds", exitCode=None)


def no_last_word(run: Any) -> None:
    run.ends(1, 134, "Fatal Python error: Aborted")


def all_pods_gone(run: Any) -> None:
    run.pods = []
    run.job_ends()
    run.wait(6)


CAUSES: list[tuple[str, Story, str, bool, str]] = [
    ("a rank that was killed", killed, "RankFailed", True, "process 3 was ended by SIGKILL (pod tiny-ptr-1-1"),
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
    ("another run at the same place", held_by_another_run, "HeldElsewhere", False, "held by process 7"),
    ("a Python error", python_error, "InternalError", True, "KeyError"),
    ("a hang seen by the launcher", launcher_saw_a_hang, "Hung", True, "no step for 300 seconds"),
    ("a death without a last word", no_last_word, "RankFailed", True, "Its last lines: Fatal Python error"),
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
    assert (status["phase"], status["attempt"], run.made) == ("Restarting", 2, ["tiny-ptr-1", "tiny-ptr-2"])
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
    assert failure["pod"].startswith("tiny-ptr-1-1-")


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


def test_while_only_consequences_are_known_the_cause_is_waited_for(cluster: Make) -> None:
    run = cluster()
    run.run()
    run.fails(0, **LOST_CONTACT)
    assert (run.reconcile().again_after, run.status["attempt"]) == (1, 1)
    run.wait(6)
    run.reconcile()
    assert run.status["lastFailure"]["reason"] == "RankFailed"
    assert run.status["restarts"] == 1


def test_pods_that_are_asked_to_stop_may_save_before_the_next_attempt(cluster: Make) -> None:
    run = cluster()
    run.run()
    for index in (0, 1):
        run.loses(index, "EvictionByEvictionAPI", grace=75)
    run.reconcile()
    assert run.status["attempt"] == 1
    run.wait(76)
    run.reconcile()
    assert run.status["attempt"] == 2


def test_a_lost_node_is_not_waited_for_and_the_job_on_it_goes(cluster: Make) -> None:
    run = cluster()
    run.run()
    run.loses(1, grace=75)
    run.reconcile()
    assert run.made == ["tiny-ptr-1", "tiny-ptr-2"]
    jobs = [key.name for key in run.objects if key.kind == "Job"]
    assert jobs == ["tiny-ptr-2"]
    assert {key.name for key in run.objects} == {"tiny-ptr-2"}, "nothing of the first attempt is left"


def test_the_last_failed_job_stays_for_its_logs_and_older_ones_go(cluster: Make) -> None:
    run = cluster()
    run.run()
    for _ in range(2):
        run.says(int(run.now.timestamp()), saved=int(run.now.timestamp()))
        run.reconcile()
        killed(run)
        run.job_ends()
        run.reconcile()
        run.schedule()
        run.wait(1)
        run.reconcile()
    assert [key.name for key in run.objects if key.kind == "Job"] == ["tiny-ptr-2", "tiny-ptr-3"]


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


def test_a_run_that_says_nothing_new_is_hung_after_its_time_and_a_margin(cluster: Make) -> None:
    run = cluster()
    run.run()
    run.says(30, saved=20)
    run.reconcile()
    run.wait(200)
    run.says(31, saved=20)
    assert run.reconcile().again_after == 360
    run.wait(361)
    run.reconcile()
    assert run.status["lastFailure"]["reason"] == "Hung"
    assert (run.status["attempt"], run.status["restarts"]) == (2, 1)
    assert [key.name for key in run.objects if key.kind == "Job"] == ["tiny-ptr-2"]


def test_a_start_may_take_three_times_as_long(cluster: Make) -> None:
    run = cluster()
    run.run()
    run.says(0, stage="compiling")
    assert run.reconcile().again_after == 960


def test_a_run_that_was_never_heard_is_not_judged(cluster: Make) -> None:
    run = cluster()
    run.run()
    run.wait(86_400)
    run.reconcile()
    assert run.status["phase"] == "Running"


def attempts(*endings: tuple[str, int, int]) -> list[AttemptStatus]:
    """Reason, newest checkpoint and length in seconds of each."""
    start = "2026-05-01T12:00:00Z"
    ends = [f"2026-05-01T12:{length // 60:02}:{length % 60:02}Z" for _, _, length in endings]
    return [
        AttemptStatus(attempt=number, started=start, ended=end, reason=reason, saved=saved)  # type: ignore[arg-type]
        for number, ((reason, saved, _), end) in enumerate(zip(endings, ends, strict=True), 1)
    ]


DEAD = ("RankFailed", 0, 9)


@pytest.mark.parametrize(
    ("endings", "delay"),
    [
        ([DEAD], 0),
        ([DEAD, DEAD], 5),
        ([DEAD, DEAD, DEAD], 10),
        ([DEAD] * 9, 300),
        ([DEAD, DEAD, ("RankFailed", 50, 9)], 0),
        ([DEAD, DEAD, ("RankFailed", 50, 9), ("RankFailed", 50, 9)], 0),
        ([DEAD, DEAD, ("RankFailed", 0, 601)], 0),
        ([("NodeLost", 0, 9), ("NodeLost", 0, 9)], 5),
        ([("StorageUnreachable", 0, 9)] * 9, 30),
        ([DEAD, DEAD, ("SuspendedByUser", 0, 9)], 0),
    ],
    ids=lambda value: str(len(value)) if isinstance(value, list) else None,
)
def test_the_first_restart_is_immediate_and_those_in_vain_are_ever_later(
    endings: list[tuple[str, int, int]], delay: float
) -> None:
    assert delay_seconds(attempts(*endings)) == delay


def test_attempts_in_vain_are_counted_from_the_last_one_that_saved() -> None:
    assert barren(attempts(("RankFailed", 10, 9), ("Hung", 10, 9), ("RankFailed", 10, 9))) == 2
    assert barren(attempts(("RankFailed", 10, 9), ("Hung", 10, 9), ("RankFailed", 10, 9)), alike=True) == 1


def test_a_restart_that_is_due_later_says_when(cluster: Make) -> None:
    run = cluster()
    run.run()
    killed(run)
    run.reconcile()
    run.schedule()
    run.reconcile()
    killed(run)
    assert run.reconcile().again_after == 5
    assert run.message("Restarting").endswith("Attempt 3 starts in 5 seconds.")
    assert run.status["attempts"][-1]["ended"] == stamp(run.now)
    run.wait(5)
    run.reconcile()
    assert run.status["attempt"] == 3
