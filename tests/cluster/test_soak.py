"""Random faults, one after the other, against one document of each sort after the other: nothing is lost.

    SOAK_SECONDS=3600 SOAK_SEED=1 make e2e PYTEST="-k soak"

Each document ends as one that nothing happened to, and each fault is told with its right cause. The seed is printed,
and the same one causes the same faults, as long as the machine is about as fast.
"""

from __future__ import annotations

import itertools
import os
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from faults import FAULTS, Scene, nothing, strike
from kubenode.client import Object, wait_until
from kubenode.installation import Installation
from kubenode.store import Store
from runs import FAST, ONE_POD, Run, aligned, dataset, losses, pretraining, storage, sums, upload, weights

SECONDS = float(os.environ.get("SOAK_SECONDS", "600"))
SEED = int(os.environ.get("SOAK_SEED", "1"))
BETWEEN_SECONDS = 60.0
"""From the end of one fault, which takes a minute, to the next, on average."""
OFTEN = 3
"""Times as often as the others comes a fault that a run can notice."""
OVER_IT_SECONDS = 240
"""From a fault's end to the first step after it, at most."""

pytestmark = [pytest.mark.serial, pytest.mark.exhaustive, pytest.mark.timeout(2 * SECONDS + 3600)]

RESTART: Object = {"maxRestarts": 100, "hangTimeout": "20s"}


@dataclass(frozen=True)
class Subject:
    """A sort of document."""

    kind: str
    make: Callable[[str, Object], Object]
    """The document of a name, with a storage of its own."""
    compare: Callable[[Store, Object, Object], None]
    """AssertionError unless two statuses are of the same work."""


def test_random_faults_cost_time_and_nothing_else(
    kindling: Installation, minio: Store, corpus: Run, power: Any
) -> None:
    print(f"seed {SEED}, {SECONDS:.0f} s", flush=True)
    base, _ = finished(kindling, pretraining("soak-base", corpus.name, training={"steps": 60, **FAST}, **ONE_POD))
    subjects = all_subjects(kindling, corpus, base["result"]["model"])
    quiet = {name: finished(kindling, one.make(f"quiet-{name}", own(kindling, name))) for name, one in subjects.items()}
    chance, clock, happened, useful = random.Random(SEED), Clock(), Counter[str](), 0.0
    for number, (name, subject) in enumerate(itertools.cycle(subjects.items())):
        if clock.passed() > SECONDS:
            break
        run = Run(kindling.cluster, subject.kind, f"soak-{number}", kindling.runs)
        begun = clock.passed()
        kindling.cluster.apply(subject.make(run.name, own(kindling, run.name)), namespace=run.namespace)
        faults = disturb(Scene(kindling, minio, power, run, chance), clock)
        end = run.finish(600)
        expected, seconds = quiet[name]
        print(f"{name}: {clock.passed() - begun:.0f} s, {seconds:.0f} without {len(faults)} faults", flush=True)
        subject.compare(minio, end, expected)
        happened.update(faults)
        useful += seconds
        run.delete()
    goodput = useful / clock.passed()
    print(f"{happened.total()} faults in {clock.passed():.0f} s, goodput {goodput:.0%}: {dict(happened)}")


class Clock:
    """When the next fault is due."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._chance = random.Random(SEED)
        self.due = self._next()

    def passed(self) -> float:
        return time.monotonic() - self._start

    def advance(self) -> None:
        self.due = self._next()

    def _next(self) -> float:
        return self.passed() + self._chance.expovariate(1 / BETWEEN_SECONDS)


def disturb(scene: Scene, clock: Clock) -> list[str]:
    """Faults against one document, until it is done: their names."""
    happened: list[str] = []
    while not is_over(scene.run):
        if clock.passed() < clock.due:
            time.sleep(0.5)
            continue
        possible = [fault for fault in FAULTS if fault.strikes(scene)]
        weights = [1 if fault.told is nothing else OFTEN for fault in possible]
        (fault,) = scene.random.choices(possible, weights)
        step = progress(scene.run)
        said = strike(fault, scene)
        seconds = goes_on(scene.run, step)
        happened.append(fault.name)
        print(f"  {scene.run.name}: {fault.name} at {step:.0f}; {said}; goes on {seconds:.0f} s later", flush=True)
        clock.advance()
    return happened


def goes_on(run: Run, step: float) -> float:
    """The seconds until it is further than this."""
    start = time.monotonic()
    wait_until("it goes on", lambda: is_over(run) or progress(run) > step, OVER_IT_SECONDS, run.describe)
    return time.monotonic() - start


def all_subjects(kindling: Installation, corpus: Run, base: str) -> dict[str, Subject]:
    """A run over two pods, an elastic one, one that is rewarded, and a build over two nodes."""
    asked = [{"question": question, "answer": right} for question, right, _ in sums()]
    data = upload(kindling, "asked", asked)
    two_pods: Object = {"training": {"steps": 600, **FAST}, "restart": RESTART}
    elastic: Object = {
        "training": {"steps": 1500, **FAST, "optimizer": {"adamW": {"learningRate": 1e-4}}},
        "restart": RESTART,
        "parallelism": {"data": "auto"},
        "resources": {"nodes": 2, "minNodes": 1, "cpu": "500m", "memory": "2Gi"},
    }
    method: Object = {
        "grpo": {
            "groupSize": 4,
            "rollout": {"prompts": 8, "maxNewTokens": 8},
            "rewards": [{"format": {"pattern": "(?s).*e.*"}}],
        }
    }
    engine: Object = {"workers": 2, "resources": {"cpu": "500m", "memory": "2Gi"}}

    def rewarded(name: str, where: Object) -> Object:
        document = aligned(name, "", "PretrainRun", method, data)
        training = {**document["spec"]["training"], "steps": 800}
        changed = {"base": {"uri": base}, "training": training, "restart": RESTART, "storage": where}
        document["spec"] |= {**changed, "checkpoint": {"every": 20}}
        return document

    def two(name: str, where: Object) -> Object:
        return pretraining(name, corpus.name, storage=where, **two_pods)

    def growing(name: str, where: Object) -> Object:
        return pretraining(name, corpus.name, storage=where, **elastic)

    def built(name: str, where: Object) -> Object:
        return dataset(name, storage=where, engine=engine)

    return {
        "two-pods": Subject("PretrainRun", two, same_weights),
        "elastic": Subject("PretrainRun", growing, same_losses),
        "rewarded": Subject("AlignmentRun", rewarded, same_weights),
        "build": Subject("DatasetBuild", built, same_shards),
    }


def same_weights(store: Store, end: Object, undisturbed: Object) -> None:
    assert weights(store, end) == weights(store, undisturbed)


def same_losses(store: Store, end: Object, undisturbed: Object) -> None:
    found, expected = losses(store, end), losses(store, undisturbed)
    assert found.keys() == expected.keys()
    assert max(abs(found[step] - expected[step]) for step in expected) < 1e-5


def same_shards(_store: Store, end: Object, undisturbed: Object) -> None:
    assert end["result"]["digest"] == undisturbed["result"]["digest"]


def own(kindling: Installation, folder: str) -> Object:
    """A storage in which nothing is done yet."""
    return storage(kindling.bucket, f"soak/{folder}")


def finished(kindling: Installation, document: Object) -> tuple[Object, float]:
    """The status of a document that nothing happens to, in the end, and how long it took."""
    name = document["metadata"]["name"]
    start = time.monotonic()
    kindling.cluster.apply(document, namespace=kindling.runs)
    status = Run(kindling.cluster, document["kind"], name, kindling.runs).finish(600)
    seconds = time.monotonic() - start
    print(f"{name}: {seconds:.0f} s", flush=True)
    return status, seconds


def is_over(run: Run) -> bool:
    return run.status().get("phase") in ("Succeeded", "Failed")


def progress(run: Run) -> float:
    """Steps, or percent of a build."""
    found = run.status().get("progress") or {}
    return float(found.get("step") or found.get("percent") or 0)
