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


def not_mounted(message: str, volume: str = "credentials") -> Story:
    def story(run: Any) -> None:
        waiting("ContainerCreating", "")(run)
        run.fails_to_mount(run.pod(1)["metadata"]["name"], message, volume)

    return story


def warned(message: str, about: str = "tiny-ptr-uid-0-1") -> Story:
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
        not_mounted('secret "minio" not found'),
        "SecretMissing",
        "The Secret minio that tiny-ptr-uid-0-1 needs is not there",
    ),
    (
        "a Secret without the key",
        not_mounted("references non-existent secret key: AWS_ACCESS_KEY_ID"),
        "SecretMissing",
        "The key AWS_ACCESS_KEY_ID of the Secret minio that tiny-ptr-uid-0-1 needs is not there",
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
        warned('pods "tiny-ptr-uid-0-1-1-abc" is forbidden: exceeded quota: small, requested: cpu=1'),
        "QuotaExceeded",
        "Raise the namespace's ResourceQuota",
    ),
    (
        "a class of priorities that is not there",
        warned('Error creating: pods "tiny-ptr-uid-0-1-0-" is forbidden: no PriorityClass with name night was found'),
        "PriorityMissing",
        "There is no PriorityClass night, which spec.priority names. Create it",
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
    assert [(event.type, event.reason) for event in run.events] == [("Normal", "Accepted"), ("Warning", reason)]


@pytest.mark.parametrize(
    ("volume", "message", "words"),
    [
        ("source-lake", 'secret "lake" not found', "The Secret lake that"),
        ("source-lake", "references non-existent secret key: AWS_ACCESS_KEY_ID", "of the Secret lake that"),
        ("credentials", "references non-existent secret key: AWS_ACCESS_KEY_ID", "of the Secret minio that"),
        ("another", "references non-existent secret key: x", "The key x of the Secret that"),
        ("hugging-face", 'secret "hub" not found', "The Secret hub that"),
        ("hugging-face", "references non-existent secret key: token", "The key token of the Secret hub that"),
    ],
)
def test_of_several_secrets_the_one_that_is_missing_is_named(
    cluster: Make, volume: str, message: str, words: str
) -> None:
    sources = [{"uri": "s3://raw/a.txt", "storage": {"credentialsSecret": "lake"}}]
    run = cluster("DatasetBuild", sources=sources, huggingFace={"tokenSecret": "hub"})
    run.reconcile()
    run.schedule()
    waits = [{"state": {"waiting": {"reason": "ContainerCreating"}}}]
    run.pod()["status"] = {"phase": "Pending", "containerStatuses": waits}
    run.fails_to_mount(run.pod()["metadata"]["name"], message, volume)
    run.reconcile()
    assert run.said("Running") == ("False", "SecretMissing")
    assert words in run.message("Running")
    known = {"hugging-face": ", with token", "another": ""}  # what a volume of the document's own holds is its affair
    keys = known.get(volume, ", with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
    assert f"Create it{keys}; the pod then starts by itself." in run.message("Running")


@pytest.mark.parametrize(
    ("own", "moved", "told"), [(False, True, True), (False, False, False), (True, True, False)],
    ids=["the default until then", "the default still", "its own storage's"],
)  # fmt: skip
def test_whose_the_missing_secret_is_is_told_where_the_settings_name_another_by_now(
    cluster: Make, own: bool, moved: bool, told: bool
) -> None:
    storage = cluster().settings.storage
    run = cluster(**({"storage": storage.document()} if own else {}))
    run.reconcile()
    run.schedule()
    if moved:
        default = storage.model_copy(update={"credentials_secret": "other"})
        run.settings = run.settings.model_copy(update={"storage": default})
    not_mounted('secret "minio" not found')(run)
    run.reconcile()
    assert ("the default storage when this document was accepted" in run.message("Running")) is told


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


@pytest.mark.parametrize(("kind", "message"), [("PretrainRun", "on 2 pods."), ("DatasetBuild", "on 1 pod.")])
def test_what_runs_says_on_how_many_pods(cluster: Make, kind: str, message: str) -> None:
    run = cluster(kind)
    run.run()
    assert run.message("Running") == f"Attempt 1 runs {message}"


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
    assert run.reconcile().requeue_after == 10
    assert run.said("Running") == ("False", "Starting")


def test_a_pod_that_waits_for_its_volumes_is_looked_at_again_since_warnings_are_not_watched(cluster: Make) -> None:
    run = cluster()
    run.reconcile()
    run.schedule()
    waiting("ContainerCreating", "")(run)
    assert run.reconcile().requeue_after == 10


def test_a_warning_of_an_attempt_before_is_none_of_this_one(cluster: Make) -> None:
    run = cluster()
    run.reconcile()
    run.schedule()
    warned("exceeded quota", about="tiny-ptr-uid-0-11")(run)
    run.reconcile()
    assert run.said("Running") == ("False", "Starting")


def test_a_job_that_the_cluster_refuses_to_take_is_told_and_tried_again(cluster: Make) -> None:
    run = cluster()
    run.apply(run.decide())
    warned('403 Forbidden: jobs.batch "tiny-ptr-uid-0-1" is forbidden: exceeded quota: jobs')(run)
    plan = run.decide()
    run.apply(plan, writes=1)
    assert (run.said("Running"), run.status["phase"]) == (("False", "QuotaExceeded"), "Waiting")
    assert [item["kind"] for item in plan.create] == ["ConfigMap", "Job"]


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
    assert run.reconcile().requeue_after == 360
    assert (run.status["attempt"], run.said("Running")) == (1, ("True", "Started"))


def test_pods_that_say_nothing_yet_are_no_failure(cluster: Make) -> None:
    run = cluster()
    run.reconcile()
    run.schedule()
    for pod, status in zip(run.pods, ({}, {"containerStatuses": None, "conditions": None}), strict=True):
        pod["status"] = status
    del run.pods[0]["spec"]
    run.reconcile()
    assert run.said("Running") == ("False", "Starting")
