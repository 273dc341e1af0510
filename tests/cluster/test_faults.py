"""Training goes on, to the same weights, whatever dies beside it or under it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from kubenode.client import Object
from kubenode.installation import Installation
from kubenode.store import Store
from runs import FAST, Run, pretraining, signal_process, storage, weights

pytestmark = [pytest.mark.serial, pytest.mark.timeout(1200)]

TRAINING: Object = {"steps": 200, **FAST}
HALF_WAY, DETECTION, RESUMPTION = 300, 90, 180
"""Seconds, at most, on a machine that is busy: to a committed checkpoint, from the end of a node to the end of the
attempt, and from there to the first new step."""


@pytest.fixture(scope="module")
def undisturbed(kindling: Installation, corpus: Run) -> Object:
    """The status of the run that nothing happened to."""
    kindling.cluster.apply(pretraining("undisturbed", corpus.name, training=TRAINING), namespace=kindling.runs)
    run = Run(kindling.cluster, "PretrainRun", "undisturbed", kindling.runs)
    status = run.finish()
    assert len(status["attempts"]) == 1
    return status


@contextmanager
def half_way(kindling: Installation, corpus: Run, name: str) -> Iterator[Run]:
    """The same run in a storage of its own, once some of it is committed."""
    spec: dict[str, Any] = {"storage": storage(kindling.bucket, name), "training": TRAINING}
    kindling.cluster.apply(pretraining(name, corpus.name, **spec), namespace=kindling.runs)
    run = Run(kindling.cluster, "PretrainRun", name, kindling.runs)
    try:
        run.wait(
            "a checkpoint is committed", lambda status: status.get("checkpoint", {}).get("step", 0) >= 100, HALF_WAY
        )
        yield run
    finally:
        run.delete()


def test_a_run_survives_the_loss_of_a_node(
    kindling: Installation, minio: Store, corpus: Run, undisturbed: Object, power: Any
) -> None:
    with half_way(kindling, corpus, "lost-node") as run:
        assert {pod["spec"]["nodeName"] for pod in run.pods()} == {"node-1", "node-2"}
        start = time.monotonic()
        power.kill_node("node-2")
        run.wait("the loss is seen", lambda status: status["attempts"][0].get("ended"), DETECTION)
        detection = time.monotonic() - start
        status = run.wait("a new step is done", first_new_step, RESUMPTION)
        resumption = time.monotonic() - start - detection
        print(f"lost node: seen after {detection:.0f} s, the first new step {resumption:.0f} s later")
        lost = status["attempts"][0]
        assert lost["reason"] == "NodeLost" and "node-2" in lost["message"]
        assert lost["saved"] >= 100, "it goes on from what is committed"
        end = run.finish()
        assert (len(end["attempts"]), end["restarts"]) == (2, 0), "a lost node is not the run's fault"
        assert_same(minio, end, undisturbed)
        assert {pod["spec"]["nodeName"] for pod in run.pods() if attempt(pod) == "2"} == {"node-1"}


@pytest.mark.exhaustive
def test_a_run_survives_the_death_of_a_rank(
    kindling: Installation, minio: Store, corpus: Run, undisturbed: Object
) -> None:
    with half_way(kindling, corpus, "lost-rank") as run:
        before, step = {pod["metadata"]["uid"] for pod in run.pods()}, run.status()["progress"]["step"]
        kill_rank(run, 1)
        start = time.monotonic()
        status = run.wait("starts again in its pods", lambda status: status if status["restarts"] else None, RESUMPTION)
        failure = status["lastFailure"]
        assert (failure["reason"], failure["rank"], failure["signal"]) == ("RankFailed", 1, "SIGKILL"), failure
        print(f"lost rank: {failure['message']}, told after {time.monotonic() - start:.0f} s")
        run.wait("a new step is done", lambda status: status["progress"]["step"] > step + 10, RESUMPTION)
        assert {pod["metadata"]["uid"] for pod in run.pods()} == before
        end = run.finish()
        assert (len(end["attempts"]), end["restarts"], end["attempts"][0]["restarts"]) == (1, 1, 1)
        assert_same(minio, end, undisturbed)


def test_a_run_does_not_notice_that_the_api_server_and_the_operator_die(
    kindling: Installation, minio: Store, corpus: Run, undisturbed: Object, power: Any
) -> None:
    with half_way(kindling, corpus, "blind") as run:
        before = {pod["metadata"]["uid"] for pod in run.pods()}
        operator = ("pods", "-n", kindling.namespace, "-l", "app.kubernetes.io/name=kindling")
        kindling.cluster.kubectl("delete", *operator, "--grace-period=0", "--force")
        power.restart("apiserver")
        end = run.finish()
        assert {pod["metadata"]["uid"] for pod in run.pods()} == before
        assert len(end["attempts"]) == 1
        assert_same(minio, end, undisturbed)


def test_a_run_outlasts_a_store_that_is_away_for_a_minute(
    kindling: Installation, minio: Store, corpus: Run, undisturbed: Object
) -> None:
    with half_way(kindling, corpus, "no-store") as run:
        before = run.status()["attempt"]
        minio.stop()
        stopped = time.monotonic()
        said = run.wait("says that the store is away", lambda _: unreachable(run), 60)
        print(f"no store: said after {time.monotonic() - stopped:.0f} s: {said['message']}")
        time.sleep(max(0.0, stopped + 60 - time.monotonic()))
        minio.start()
        end = run.finish()
        assert (end["attempt"], end["restarts"]) == (before, 0), end["attempts"]
        assert_same(minio, end, undisturbed)


def first_new_step(status: Object) -> Object | None:
    """The status once a second attempt has got further than what the first one has saved."""
    if len(status["attempts"]) < 2 or status["attempts"][1].get("running") is None:
        return None
    first, second = status["attempts"]
    is_fresh = status["progressTime"] >= second["running"]
    return status if is_fresh and status["progress"]["step"] > first["saved"] else None


def unreachable(run: Run) -> Object | None:
    """Its condition, if that says that the store is away."""
    condition = run.condition("Running")
    return condition if condition.get("reason") == "StorageUnreachable" else None


def kill_rank(run: Run, rank: int) -> None:
    """Kill -9 of the training process in one pod."""
    index = "batch.kubernetes.io/job-completion-index"
    signal_process(run, next(pod for pod in run.pods() if pod["metadata"]["labels"][index] == str(rank)), "SIGKILL")


def attempt(pod: Object) -> str:
    """Of which attempt a pod is."""
    number: str = pod["metadata"]["labels"]["kindling.dev/attempt"]
    return number


def assert_same(store: Store, end: Object, undisturbed: Object) -> None:
    """Losses and weights are those of the run that nothing happened to, to the last bit."""
    figures = ("loss", "validationLoss", "steps", "tokens")
    assert [end["result"][figure] for figure in figures] == [undisturbed["result"][figure] for figure in figures]
    assert weights(store, end) == weights(store, undisturbed)
