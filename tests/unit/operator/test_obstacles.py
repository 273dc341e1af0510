"""Pods that do not start: what is said of it, and that it says what to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from kindling_operator.moments import stamp

Make = Callable[..., Any]
Story = Callable[[Any], None]


def waiting(reason: str, message: str) -> Story:
    def story(run: Any) -> None:
        state = {"waiting": {"reason": reason, "message": message}}
        run.pod(1)["status"] = {"phase": "Pending", "containerStatuses": [{"state": state}]}

    return story


def unschedulable(message: str, seconds: float = 10) -> Story:
    def story(run: Any) -> None:
        scheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
        scheduled["lastTransitionTime"] = stamp(run.now)
        run.pod(1)["status"] = {"phase": "Pending", "conditions": [scheduled]}
        run.wait(seconds)

    return story


def warned(message: str, about: str = "tiny-ptr-1") -> Story:
    def story(run: Any) -> None:
        run.pods = run.pods[:1]
        run.warnings = [{"metadata": {}, "involvedObject": {"name": about}, "message": message, "lastTimestamp": "1"}]

    return story


OBSTACLES = [
    (
        "an image that is not there",
        waiting("ImagePullBackOff", 'Back-off pulling image "trainer:1"'),
        "ImagePullFailed",
        "Check that it exists",
    ),
    ("an image name that is none", waiting("InvalidImageName", ""), "ImagePullFailed", "InvalidImageName"),
    (
        "a Secret that is not there",
        waiting("CreateContainerConfigError", 'secret "minio" not found'),
        "SecretMissing",
        "The Secret minio that pod",
    ),
    (
        "a Secret without the key",
        waiting("CreateContainerConfigError", "couldn't find key AWS_ACCESS_KEY_ID in Secret team/minio"),
        "SecretMissing",
        "The key AWS_ACCESS_KEY_ID that pod",
    ),
    (
        "an image that wants to be root",
        waiting("CreateContainerConfigError", "container has runAsNonRoot and image will run as root"),
        "CannotStart",
        "image will run as root",
    ),
    (
        "too little of a resource",
        unschedulable(
            "0/2 nodes are available: 1 Insufficient memory, 2 Insufficient nvidia.com/gpu. preemption: none."
        ),
        "Unschedulable",
        "no node has enough memory and nvidia.com/gpu left",
    ),
    (
        "no node with the label",
        unschedulable("0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector."),
        "Unschedulable",
        "no node fits. The scheduler says: 0/2 nodes are available: 2 node(s) didn't match",
    ),
    (
        "a quota that is used up",
        warned('pods "tiny-ptr-1-1-abc" is forbidden: exceeded quota: small, requested: cpu=1'),
        "QuotaExceeded",
        "Raise the namespace's ResourceQuota",
    ),
    (
        "a pod that is refused",
        warned('pods "x" is forbidden: violates PodSecurity'),
        "CannotStart",
        "violates PodSecurity",
    ),
]


@pytest.mark.parametrize(
    ("story", "reason", "words"), [row[1:] for row in OBSTACLES], ids=[row[0] for row in OBSTACLES]
)
def test_what_keeps_pods_from_running_is_said_once_and_with_what_to_do(
    cluster: Make, story: Story, reason: str, words: str
) -> None:
    run = cluster()
    run.reconcile()
    run.schedule()
    story(run)
    run.reconcile()
    assert (run.status["phase"], run.said("Running")) == ("Waiting", ("False", reason))
    assert words in run.message("Running")
    run.wait(60)
    run.reconcile()
    assert [(note.type, note.reason) for note in run.events] == [("Normal", "Accepted"), ("Warning", reason)]


def test_once_it_is_mended_the_run_goes_on(cluster: Make) -> None:
    run = cluster()
    run.reconcile()
    run.schedule()
    running = run.pod(1)["status"]
    waiting("ImagePullBackOff", "")(run)
    run.reconcile()
    run.pod(1)["status"] = running
    run.reconcile()
    assert (run.status["phase"], run.said("Running"), run.status["attempt"]) == ("Running", ("True", "Started"), 1)


@pytest.mark.parametrize("first", [0, 1])
def test_a_run_of_which_one_pod_is_done_before_the_other_still_runs(cluster: Make, first: int) -> None:
    run = cluster()
    run.run()
    run.ends(first, 0, reason="Completed")
    run.reconcile()
    assert run.said("Running") == ("True", "Started")
    run.succeeds()
    run.reconcile()
    assert run.said("Running") == ("False", "Completed")


def test_a_pod_that_has_just_come_is_given_some_seconds_to_find_a_node(cluster: Make) -> None:
    run = cluster()
    run.reconcile()
    run.schedule()
    unschedulable("0/2 nodes are available: 2 Insufficient cpu.", seconds=0)(run)
    assert run.reconcile().again_after == 10
    assert run.said("Running") == ("False", "Starting")


def test_a_warning_of_an_attempt_before_is_none_of_this_one(cluster: Make) -> None:
    run = cluster()
    run.reconcile()
    run.schedule()
    warned("exceeded quota", about="tiny-ptr-11")(run)
    run.reconcile()
    assert run.said("Running") == ("False", "Starting")


def test_a_job_that_the_cluster_refuses_to_take_is_told_and_tried_again(cluster: Make) -> None:
    run = cluster()
    run.enact(run.decide())
    warned('403 Forbidden: jobs.batch "tiny-ptr-1" is forbidden: exceeded quota: jobs')(run)
    plan = run.decide()
    run.enact(plan, writes=1)
    assert (run.said("Running"), run.status["phase"]) == (("False", "QuotaExceeded"), "Waiting")
    assert [item["kind"] for item in plan.create] == ["ConfigMap", "Job"]
