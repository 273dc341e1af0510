"""What keeps a run from starting ends in a condition within half a minute, with a sentence that says what to do."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import pytest

from kubenode.client import Object
from kubenode.installation import Installation
from runs import SECRET, Run, dataset, pretraining, storage

IN_TIME = 30
"""Seconds."""

URI = {"uri": "s3://nowhere/dataset"}
"""A dataset that is asked for only by a pod that runs."""
TINY = {"nodes": 1, "cpu": "100m", "memory": "256Mi"}


def single(name: str, **spec: Any) -> Object:
    """A PretrainRun of one pod, which waits for no dataset."""
    return pretraining(name, URI, **{"parallelism": {}, "resources": TINY, **spec})


def built_in(memory: str) -> Object:
    """An engine of one pod."""
    return {"resources": {"cpu": "200m", "memory": memory}}


STAGED_ALIGNMENT = {
    "apiVersion": "kindling.dev/v1alpha1",
    "kind": "AlignmentRun",
    "metadata": {"name": "staged"},
    "spec": {
        "base": {"name": "base"},
        "method": {"sft": {}},
        "data": [URI],
        "parallelism": {"pipeline": 2},
        "resources": {"nodes": 2},
    },
}

CASES = [
    pytest.param(
        single("no-secret", storage=storage("nowhere", "", secret="forgotten")),
        ("Running", "False", "SecretMissing", ["forgotten", "Create it"]),
        id="a Secret that is missing",
    ),
    pytest.param(
        dataset("no-bucket", storage=storage("no-such-bucket", "runs"), engine=built_in("1Gi")),
        ("Failed", "True", "UserError", ["no-such-bucket", "bucket"]),
        id="a bucket that is missing",
    ),
    pytest.param(
        single("no-image", image="localhost:5000/no-such-image:1"),
        ("Running", "False", "ImagePullFailed", ["localhost:5000/no-such-image:1", "Check that it exists"]),
        id="an image that cannot be pulled",
    ),
    pytest.param(
        single("foreign-image", image="example.com/miner:1"),
        ("Accepted", "False", "InvalidSpec", ["spec.image", "localhost:5000/", "images.allowedPrefixes"]),
        id="an image from elsewhere",
    ),
    pytest.param(
        single("too-large", resources={"nodes": 1, "cpu": "64", "memory": "256Mi"}),
        ("Running", "False", "Unschedulable", ["no node has enough cpu left", "resources"]),
        id="more than a node has",
    ),
    pytest.param(
        pretraining("no-dataset", "forgotten"),
        ("DatasetReady", "False", "NotFound", ["DatasetBuild/forgotten", "starts by itself"]),
        id="a reference to nothing",
    ),
    pytest.param(
        dataset("small-pod", engine=built_in("48Mi")),
        ("Restarting", "True", "OutOfMemory", ["ran out of memory", "spec.engine.resources"]),
        id="too little memory",
    ),
]


@pytest.mark.parametrize(("document", "expected"), CASES)
def test_a_condition_says_what_to_do(
    kindling: Installation, document: Object, expected: tuple[str, str, str, Sequence[str]]
) -> None:
    assert_said(kindling, document, expected)


@pytest.mark.serial
def test_a_quota_that_is_used_up_is_told(kindling: Installation) -> None:
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "small"}}
    kindling.cluster.apply({**quota, "spec": {"hard": {"requests.cpu": "50m"}}}, namespace=kindling.runs)
    try:
        words = ["requests.cpu", "ResourceQuota"]
        assert_said(kindling, single("no-room"), ("Running", "False", "QuotaExceeded", words))
    finally:
        kindling.cluster.delete("resourcequota", "small", kindling.runs)


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (dataset("typo", tokeniser={"byte": {}}), ["tokeniser"]),
        (dataset("two", tokenizer={"byte": {}, "char": {}}), ["spec.tokenizer"]),
        (single("zero", training={"steps": 0, "batch": {"tokens": "1Ki"}}), ["spec.training.steps"]),
        (
            pretraining("odd", "corpus", parallelism={"tensor": 4}),
            ["parallelism: tensor × pipeline × context × data × replicas must equal resources.nodes"],
        ),
        (dataset("n" * 53), ["52 at most"]),
        (STAGED_ALIGNMENT, ["parallelism.pipeline must be 1: only pretraining has stages"]),
    ],
    ids=[
        "an unknown field",
        "two choices of one",
        "out of range",
        "a layout that does not fit the pods",
        "a name that leaves no room",
        "stages in an alignment",
    ],
)
def test_the_api_server_itself_refuses_what_is_invalid(
    kindling: Installation, document: Object, words: Sequence[str]
) -> None:
    cluster = kindling.cluster
    done = cluster.run_kubectl("create", "-n", kindling.runs, "-f", "-", standard_input=str(document))
    assert done.returncode != 0
    print(done.stderr.strip())
    assert all(word in done.stderr for word in words), done.stderr


def assert_said(kindling: Installation, document: Object, expected: tuple[str, str, str, Sequence[str]]) -> None:
    """The condition comes in time, an Event tells of it, and no secret is told with it."""
    type_, status, reason, words = expected
    name = document["metadata"]["name"]
    run = Run(kindling.cluster, document["kind"], name, kindling.runs)
    start = time.monotonic()
    kindling.cluster.apply(document, namespace=kindling.runs)
    try:
        run.wait(f"{type_}={status}, {reason}", lambda _: matches(run.condition(type_), status, reason), IN_TIME)
        message = run.condition(type_)["message"]
        print(f"{time.monotonic() - start:.0f} s, {reason}: {message}")
        assert all(word in message for word in words), message
        run.wait("an Event tells of it", lambda _: message[:40] in run.describe().partition("Events:")[2], 10)
        assert SECRET not in message
    finally:
        run.delete()


def matches(condition: Object, status: str, reason: str) -> bool:
    """Whether it is as expected."""
    return (condition.get("status"), condition.get("reason")) == (status, reason)
