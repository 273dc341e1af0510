"""Runs in queues of Kueue: they wait for quota, give way to what is more urgent, and lose next to nothing by it."""

from __future__ import annotations

import json
import re
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import pytest

from kubenode import additions
from kubenode.certificates import kubeconfig
from kubenode.client import Object, wait_until
from kubenode.installation import Installation
from kubenode.node import all_nodes
from queues import Queues
from runs import FAST, ONE_POD, Run, dataset, pretraining, storage

pytestmark = [pytest.mark.serial, pytest.mark.timeout(900)]

LONG: Object = {"steps": 100_000, **FAST}
SHORT: Object = {"steps": 20, **FAST}
NEVER: Object = {"every": 100_000}
ROUNDS = 20


@pytest.fixture(scope="module")
def queues(kindling: Installation) -> Iterator[Queues]:
    """Kueue is installed for the tests of this file alone."""
    if kindling.cluster.kubeconfig != kubeconfig():
        pytest.skip("Kueue is put on the cluster of this machine alone")
    start = time.monotonic()
    additions.install_kueue(all_nodes()[0])
    print(f"Kueue is there after {time.monotonic() - start:.0f} s")
    queues = Queues(kindling.cluster, kindling.runs)
    queues.start()
    try:
        yield queues
    finally:
        queues.end()
        additions.remove_kueue()


def test_a_run_waits_for_quota_gives_way_to_a_more_urgent_one_and_goes_on_where_it_was(
    kindling: Installation, queues: Queues, corpus: Run
) -> None:
    first, second, urgent = (Run(kindling.cluster, "PretrainRun", name, kindling.runs) for name in NAMES)
    with queues.queue("one-run", "500m") as queue, queues.priority("later", 100) as later:
        spec = {"queue": queue, "storage": storage(kindling.bucket, "queued"), **ONE_POD}
        with deleted(first, second, urgent):
            apply(first, corpus, training=LONG, checkpoint=NEVER, priority=later, **spec)
            trains(first, 5)
            apply(second, corpus, training=SHORT, **spec)
            second.wait("says what it waits for", lambda _: "500m more needed" in queued(second), 60)
            apply(urgent, corpus, training={**SHORT, "seed": 2}, priority="now", **spec)
            urgent.wait("misses its class", lambda _: urgent.condition("Running").get("reason") == MISSING, 60)
            with last_step(first) as steps, queues.priority("now", 10_000):
                first.wait("gives way", lambda status: status["phase"] == "Queued", 90)
                urgent.finish()
                first.wait("is let in again", lambda status: status["phase"] == "Running", 120)
            assert steps_lost(first, steps) == 0
            assert (first.status()["attempt"], first.status()["restarts"]) == (1, 0)
            assert second.status()["phase"] == "Queued", "what was before it is so again"
            first.delete()
            second.finish()


def test_a_build_by_ray_is_let_in_as_a_whole_on_quota_that_another_queue_does_not_use(
    kindling: Installation, queues: Queues
) -> None:
    build = Run(kindling.cluster, "DatasetBuild", "borrows", kindling.runs)
    engine = {"workers": 1, "resources": {"cpu": "500m", "memory": "2Gi"}}
    cohort = "lent"
    with queues.queue("has-none", "0", cohort) as queue, deleted(build):
        document = dataset("borrows", queue=queue, engine=engine, storage=storage(kindling.bucket, "borrows"))
        kindling.cluster.apply(document, namespace=kindling.runs)
        build.wait("waits", lambda _: "insufficient" in queued(build), 60)
        assert not build.pods()
        with queues.queue("lends", "2", cohort):
            build.wait("is built", lambda status: status["phase"] == "Running", 150)
            assert queues.borrowed(queue) == "1100m", "head, worker and submitter"
            build.finish(240)


@pytest.mark.exhaustive
def test_an_elastic_run_is_let_in_with_the_nodes_that_its_queue_has_room_for(
    kindling: Installation, queues: Queues, corpus: Run
) -> None:
    run, greedy = (Run(kindling.cluster, "PretrainRun", name, kindling.runs) for name in ("elastic", "needs-two"))
    resources = {"nodes": 2, "cpu": "500m", "memory": "2Gi"}
    with queues.queue("room-for-one", "500m") as queue, deleted(run, greedy):
        spec = {"queue": queue, "storage": storage(kindling.bucket, "partial"), "training": {**SHORT, "steps": 300}}
        apply(greedy, corpus, resources=resources, **spec)
        greedy.wait("waits", lambda _: "insufficient" in queued(greedy), 60)
        greedy.delete()
        apply(run, corpus, parallelism={"data": "auto"}, resources={**resources, "minNodes": 1}, **spec)
        run.wait("goes over one node", lambda status: status.get("nodes", {}).get("running") == 1, 150)
        assert run.status()["nodes"] == {"running": 1, "wanted": 2, "sizes": [1, 2]}
        end = run.finish()
        assert (end["attempt"], end["restarts"], len(run.pods())) == (1, 0, 1)


@pytest.mark.exhaustive
def test_a_run_that_loses_its_node_goes_on_before_the_next_in_line(
    kindling: Installation, queues: Queues, corpus: Run, power: Any
) -> None:
    cluster = kindling.cluster
    first, second = (Run(cluster, "PretrainRun", name, kindling.runs) for name in ("loses-a-node", "next-in-line"))
    with queues.queue("one-run", "500m") as queue:
        spec = {"queue": queue, "storage": storage(kindling.bucket, "lost"), **ONE_POD}
        with deleted(first, second):
            cluster.kubectl("cordon", "node-1")
            apply(first, corpus, training=LONG, checkpoint={"every": 10}, **spec)
            trains(first, 20)
            cluster.kubectl("uncordon", "node-1")
            apply(second, corpus, training={**LONG, "seed": 2}, **spec)
            second.wait("waits", lambda status: status["phase"] == "Queued", 30)
            power.kill_node("node-2")
            first.wait("goes on", lambda status: status["phase"] == "Running" and status["attempt"] == 2, 300)
            ended = first.status()["attempts"][0]
            assert (ended["reason"], first.status()["restarts"]) == ("NodeLost", 0), ended
            assert second.status()["phase"] == "Queued"
            assert boost(queues, first) >= 100 > boost(queues, second)


@pytest.mark.exhaustive
@pytest.mark.timeout(3600)
def test_twenty_preemptions_take_the_run_with_least_at_risk_and_at_most_a_step_of_it(
    kindling: Installation, queues: Queues, corpus: Run
) -> None:
    """Each round, the run that keeps little is let in last, which without a boost makes it the victim."""
    cluster = kindling.cluster
    careful, careless = (Run(cluster, "PretrainRun", name, kindling.runs) for name in ("careful", "careless"))
    bystander = urgent_job("bystander", None)
    with queues.queue("two-runs", "1") as queue, queues.priority("now", 10_000) as now:
        spec = {"queue": queue, "storage": storage(kindling.bucket, "preempted"), **ONE_POD}
        with deleted(careful, careless):
            cluster.apply(bystander, namespace=kindling.runs)
            before = cluster.get("job", "bystander", kindling.runs)
            apply(careful, corpus, training=LONG, checkpoint={"every": 10}, **spec)
            apply(careless, corpus, training={**LONG, "seed": 2}, checkpoint=NEVER, **spec)
            victims, lost = [], []
            for number in range(ROUNDS):
                readmitted(queues, careless)
                trains(careful, careful.status().get("checkpoint", {}).get("step", 0) + 20)
                wait_until("more is at risk", lambda: boost(queues, careless) > boost(queues, careful) + 5, 120)
                with last_step(careful) as steps:
                    cluster.apply(urgent_job("urgent", queue, now), namespace=kindling.runs)
                    victim = wait_until("one gives way", lambda: waiting(careful, careless), 90)
                    cluster.delete("job", "urgent", kindling.runs, "--timeout=90s")
                    trains(victim, 0)
                victims.append(victim.name)
                lost.append(steps_lost(careful, steps))
                print(f"round {number + 1}: {victims[-1]}, {lost[-1]} steps lost", flush=True)
            assert victims == ["careful"] * ROUNDS
            assert max(lost) <= 1
            after = cluster.get("job", "bystander", kindling.runs)
            assert after is not None and before is not None and after["spec"] == before["spec"]
            cluster.delete("job", "bystander", kindling.runs)


NAMES, MISSING = ("first", "second", "urgent"), "PriorityMissing"


def apply(run: Run, corpus: Run, **spec: Any) -> None:
    """A document of a run of pre-training."""
    run.cluster.apply(pretraining(run.name, corpus.name, **spec), namespace=run.namespace)


def trains(run: Run, step: int) -> None:
    """Waits until it runs, and is further than a step."""
    run.wait(
        f"is beyond step {step}",
        lambda status: status["phase"] == "Running" and status.get("progress", {}).get("step", 0) > step,
        150,
    )


def queued(run: Run) -> str:
    """What it waits for."""
    condition = run.condition("Queued")
    return str(condition["message"]) if condition.get("status") == "True" else ""


@contextmanager
def deleted(*runs: Run) -> Iterator[None]:
    """They are gone afterwards."""
    try:
        yield
    finally:
        for run in runs:
            run.delete()


@contextmanager
def last_step(run: Run) -> Iterator[list[int]]:
    """The steps of which its pod tells until it has ended, which it does meanwhile; asked without a pause."""
    (pod,) = (pod for pod in run.pods() if pod["status"]["phase"] == "Running")
    steps: list[int] = []

    def ask() -> None:
        with suppress(OSError):
            while True:
                with urllib.request.urlopen(f"http://{pod['status']['podIP']}:8090/progress", timeout=20) as answer:
                    steps.append(json.load(answer)["training"]["step"])
                time.sleep(0.05)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    yield steps
    asking.join(60)


def steps_lost(run: Run, steps: list[int]) -> int:
    """The steps that a pod had done in the end, less those with which the next one began."""

    def begun() -> str | None:
        log = run.cluster.logs(run.pods()[-1]["metadata"]["name"], run.namespace)
        found = re.search(r"continues from checkpoint step-0*(\d+)-", log)
        return found[1] if found else None

    step = int(wait_until("the next pod goes on", begun, 90))
    print(f"{run.name}: {steps[-1]} steps done, goes on from step {step}", flush=True)
    return steps[-1] - step


def waiting(*runs: Run) -> Run | None:
    """The one that waits in its queue."""
    return next((run for run in runs if run.status()["phase"] == "Queued"), None)


def boost(queues: Queues, run: Run) -> int:
    """What Kueue adds to its priority."""
    annotations = queues.workload(run).get("metadata", {}).get("annotations", {})
    return int(annotations.get("kueue.x-k8s.io/priority-boost", "0"))


def readmitted(queues: Queues, run: Run) -> None:
    """It is stopped, and let in anew."""
    for active, phase in ((False, "Queued"), (True, "Running")):
        workload, patch = queues.workload(run)["metadata"]["name"], json.dumps({"spec": {"active": active}})
        run.cluster.kubectl("patch", "workload", workload, "-n", run.namespace, "--type=merge", "-p", patch)
        run.wait(f"is {phase}", partial(is_in_phase, phase), 120)


def is_in_phase(phase: str, status: Object) -> bool:
    """Whether that is what a status says."""
    return bool(status["phase"] == phase)


def urgent_job(name: str, queue: str | None, priority: str | None = None) -> Object:
    """A Job of nobody's, that does nothing; without a queue it is suspended for good."""
    labels = {"kueue.x-k8s.io/queue-name": queue, "kueue.x-k8s.io/priority-class": priority}
    restricted = {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}}
    container = {
        "name": "pause",
        "image": "localhost/pause:1",
        "resources": {"requests": {"cpu": "500m", "memory": "16Mi"}},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    pod = {"restartPolicy": "Never", "securityContext": restricted, "containers": [container]}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "labels": {key: value for key, value in labels.items() if value}},
        "spec": {"suspend": True, "template": {"spec": pod}},
    }
