"""Faults that a cluster can be made to have, and what a document's status must say of each."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from kubenode.client import Object, wait_until
from kubenode.installation import Installation
from kubenode.processes import ClusterError
from kubenode.store import Store
from runs import Run, signal_process

LOST = "node-2"
"""The node that may go: MinIO, and what else the others need, is on the other one."""
AWAY_SECONDS = 45
"""How long a store, a wire or a node is away."""


@dataclass
class Scene:
    """A document that is at work, and all that can happen to it."""

    kindling: Installation
    minio: Store
    power: Any
    run: Run
    random: random.Random
    before: Object = field(default_factory=dict)
    """Its status before the fault."""

    def pods(self) -> list[Object]:
        """Those of its pods that run."""
        running = [pod for pod in self.run.pods() if pod["status"]["phase"] == "Running"]
        return [pod for pod in running if "deletionTimestamp" not in pod["metadata"]]

    def is_on(self, node: str) -> bool:
        """Whether one of them is on this node."""
        return any(pod["spec"]["nodeName"] == node for pod in self.pods())


Told = Callable[[Scene, Object], str]
"""What a status says of the fault; empty while it says nothing."""


@dataclass(frozen=True)
class Fault:
    """Something that happens, and what is said of it."""

    name: str
    cause: Callable[[Scene], None]
    told: Told
    """As long as it says nothing, the scene is watched, for at most `seconds`."""
    end: Callable[[Scene], None] = lambda scene: None
    """What puts right what was broken."""
    seconds: float = 45
    strikes: Callable[[Scene], bool] = lambda scene: True
    """Whether the document can notice it."""


def nothing(_scene: Scene, _status: Object) -> str:
    """What does not touch a run is none of its business."""
    return "nothing to tell"


def failed(reason: str, signal: str | None = None) -> Told:
    """Its last failure is a new one, with this cause."""

    def told(scene: Scene, status: Object) -> str:
        failure = status.get("lastFailure") or {}
        is_new = failure != (scene.before.get("lastFailure") or {})
        if not is_new:
            return ""
        assert (failure["reason"], failure.get("signal")) == (reason, signal), failure
        return f"{failure['reason']}: {failure['message']}"

    return told


def left(*reasons: str) -> Told:
    """A new attempt follows for one of these reasons, or an elastic run goes on over other nodes."""

    def told(scene: Scene, status: Object) -> str:
        if (resizes := status.get("resizes") or []) != (scene.before.get("resizes") or []):
            return f"resized from {resizes[-1]['before']} to {resizes[-1]['nodes']}: {resizes[-1]['cause']}"
        attempts = status.get("attempts") or []
        current = scene.before.get("attempt", 1)
        ended = next((each for each in attempts if each["attempt"] == current and each.get("ended")), None)
        if ended is None:
            return ""
        assert ended["reason"] in reasons, ended
        return f"{ended['reason']}: {ended.get('message', '')}"

    return told


def store_is_away(scene: Scene, status: Object) -> str:
    """A condition says so."""
    conditions: list[Object] = status.get("conditions") or []
    return next((each["message"] for each in conditions if each["reason"] == "StorageUnreachable"), "")


def signalled(name: str) -> Callable[[Scene], None]:
    """A signal to the training process of one of its pods."""
    return lambda scene: signal_process(scene.run, scene.random.choice(scene.pods()), name)


def deleted(*options: str) -> Callable[[Scene], None]:
    """One of its pods is."""

    def cause(scene: Scene) -> None:
        pod = scene.random.choice(scene.pods())["metadata"]["name"]
        scene.run.cluster.kubectl("delete", "pod", pod, "-n", scene.run.namespace, "--wait=false", *options)

    return cause


def node_drained(scene: Scene) -> None:
    options = ("--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=120s")
    scene.run.cluster.kubectl("drain", LOST, *options)


def operator_killed(scene: Scene) -> None:
    pods = ("pods", "-n", scene.kindling.namespace, "-l", "app.kubernetes.io/name=kindling")
    scene.run.cluster.kubectl("delete", *pods, "--grace-period=0", "--force")


def scaled(replicas: int) -> Callable[[Scene], None]:
    """So many operators."""

    def cause(scene: Scene) -> None:
        operator = ("deployment/kindling", "-n", scene.kindling.namespace)
        scene.run.cluster.kubectl("scale", *operator, f"--replicas={replicas}")

    return cause


def restarted(daemon: str) -> Callable[[Scene], None]:
    """A part of the control plane is."""
    return lambda scene: scene.power.restart(daemon)


def after_a_while(mend: Callable[[Scene], object]) -> Callable[[Scene], None]:
    """What is away comes back."""

    def end(scene: Scene) -> None:
        time.sleep(AWAY_SECONDS)
        mend(scene)

    return end


def connect(scene: Scene) -> None:
    scene.power.reconnect_node(LOST)


def trains(scene: Scene) -> bool:
    """Whether it has training processes, and took a step."""
    if scene.run.kind == "DatasetBuild" or not scene.pods():
        return False
    return bool((scene.run.status().get("progress") or {}).get("step"))


def has_pods(scene: Scene) -> bool:
    """Whether it has pods of its own, which nothing but Kindling replaces."""
    return scene.run.kind != "DatasetBuild" and bool(scene.pods())


def has_ray(scene: Scene) -> bool:
    return bool(_ray(scene, "worker")) and bool(_ray(scene, "head"))


def ray_deleted(type_: str) -> Callable[[Scene], None]:
    """A pod of this type of Ray's nodes is."""

    def cause(scene: Scene) -> None:
        pod = scene.random.choice(_ray(scene, type_))["metadata"]["name"]
        scene.run.cluster.kubectl("delete", "pod", pod, "-n", scene.run.namespace, "--grace-period=0", "--force")

    return cause


def _ray(scene: Scene, type_: str) -> list[Object]:
    return [pod for pod in scene.pods() if pod["metadata"]["labels"].get("ray.io/node-type") == type_]


def uses_lost_node(scene: Scene) -> bool:
    return has_pods(scene) and scene.is_on(LOST)


FAULTS = (
    Fault("a process is killed", signalled("SIGKILL"), failed("RankFailed", "SIGKILL"), strikes=trains),
    Fault("a process is stopped", signalled("SIGSTOP"), failed("Hung"), seconds=90, strikes=trains),
    Fault("a pod is deleted", deleted(), left("Evicted"), seconds=90, strikes=trains),
    Fault("a pod vanishes", deleted("--grace-period=0", "--force"), left("Evicted"), seconds=90, strikes=trains),
    Fault(
        "a node loses its power",
        lambda scene: scene.power.kill_node(LOST),
        left("NodeLost"),
        after_a_while(lambda scene: scene.power.start_node(LOST)),
        seconds=90,
        strikes=uses_lost_node,
    ),
    Fault(
        "a node is cut off",
        lambda scene: scene.power.disconnect_node(LOST),
        left("NodeLost"),
        after_a_while(connect),
        seconds=90,
        strikes=uses_lost_node,
    ),
    Fault(
        "the store is away",
        lambda scene: scene.minio.stop(),
        store_is_away,
        after_a_while(lambda scene: scene.minio.start()),
        seconds=60,
        strikes=trains,
    ),
    Fault(
        "a node is drained",
        node_drained,
        left("Evicted"),
        after_a_while(lambda scene: scene.run.cluster.kubectl("uncordon", LOST)),
        seconds=150,
        strikes=uses_lost_node,
    ),
    Fault("a worker of Ray vanishes", ray_deleted("worker"), nothing, strikes=has_ray),
    Fault("Ray's head vanishes", ray_deleted("head"), nothing, strikes=has_ray),
    Fault("the operator is killed", operator_killed, nothing),
    Fault("there are two operators", scaled(2), nothing, after_a_while(scaled(1))),
    Fault("there is no operator", scaled(0), nothing, after_a_while(scaled(1))),
    Fault("the API server starts again", restarted("apiserver"), nothing),
    Fault("etcd starts again", restarted("etcd"), nothing),
    Fault("the scheduler starts again", restarted("scheduler"), nothing),
    Fault("the controllers start again", restarted("controller-manager"), nothing),
)


def strike(fault: Fault, scene: Scene) -> str:
    """Let it happen, until it is told, and put it right; returns what was told, and after how long.

    Raises:
        AssertionError: it is not told in time, or as another one.
    """
    scene.before = scene.run.status()
    start = time.monotonic()

    def told() -> str:
        status = scene.run.status()
        return fault.told(scene, status) or ("it was over before" if status["phase"] == "Succeeded" else "")

    try:
        try:
            fault.cause(scene)
        except ClusterError:  # whom it was to strike may be gone
            wait_until("it is over", lambda: scene.run.status()["phase"] == "Succeeded", fault.seconds)
        said = wait_until(f"{fault.name} is told", told, fault.seconds, scene.run.describe)
        return f"after {time.monotonic() - start:.0f} s: {said}"
    finally:
        fault.end(scene)
