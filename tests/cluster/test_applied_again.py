"""A document that is deleted, changed and applied again at once is another one: nothing of the first is told of it."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from kubenode.client import Cluster, Object, program, wait_until
from kubenode.installation import Installation
from runs import FAST, ONE_POD, Run, aligned, dataset, dialogues, pretraining, storage, upload

TWO_PODS: Object = {"parallelism": {"tensor": 2}, "resources": {"nodes": 2, "cpu": "500m", "memory": "2Gi"}}
RAY: Object = {"engine": {"workers": 1, "resources": {"cpu": "500m", "memory": "2Gi"}}}
LONG, SHORT, CHANGED = 4000, 40, 60
"""Optimizer steps: of a run that is deleted half-way, of one that has succeeded, of the one that is applied again."""

KINDS = ("DatasetBuild", "PretrainRun", "AlignmentRun")
PHASES: dict[str, Callable[[Object], Any]] = {
    "accepted": lambda status: status.get("conditions"),
    "starting": lambda status: status.get("attempt"),
    "running": lambda status: status.get("phase") == "Running",
    "half-way": lambda status: status.get("checkpoint") or status.get("progress", {}).get("documents"),
    "succeeded": lambda status: status.get("phase") == "Succeeded",
}


@dataclass(frozen=True)
class Story:
    """A document under one name, as it is at first and as it is applied again."""

    kind: str
    name: str
    first: Object
    again: Object


@pytest.fixture(scope="module")
def write(kindling: Installation, corpus: Run) -> Iterator[Callable[[str, str, int], Story]]:
    """Writes a document of a kind, for one pod or two, in a storage of its own; the change is part of its key."""
    base = Run(kindling.cluster, "PretrainRun", "again-base", kindling.runs)
    data: list[Object] = []

    def training(kind: str, name: str, pods: int, steps: int) -> Object:
        spec = {
            "training": {"steps": steps, **FAST},
            "checkpoint": {"every": 20},
            **(TWO_PODS if pods > 1 else ONE_POD),
        }
        spec["storage"] = storage(kindling.bucket, name)
        if kind == "PretrainRun":
            return pretraining(name, corpus.name, **spec)
        if not data:
            short = {"training": {"steps": 20, **FAST}, **ONE_POD}
            kindling.cluster.apply(pretraining(base.name, corpus.name, **short), namespace=kindling.runs)
            base.finish()
            data.append(upload(kindling, "again", dialogues()))
        document = aligned(name, base.name, "PretrainRun", {"sft": {}}, data[0])
        document["spec"] |= spec
        return document

    def story(kind: str, phase: str, pods: int) -> Story:
        name = f"again-{kind.lower()}-{phase}-{pods}"
        if kind != "DatasetBuild":
            first = SHORT if phase == "succeeded" else LONG
            return Story(kind, name, *(training(kind, name, pods, steps) for steps in (first, CHANGED)))
        spec = {"storage": storage(kindling.bucket, name), **(RAY if pods > 1 else {})}
        sizes = ({"train": {"vocabSize": size}} for size in (512, 500 + CHANGED))
        return Story(kind, name, *(dataset(name, tokenizer=size, **spec) for size in sizes))

    yield story
    base.delete()


@pytest.mark.parametrize(
    ("kind", "phase", "pods"),
    [("PretrainRun", "half-way", 2), ("DatasetBuild", "running", 1)],
)
def test_a_document_that_is_applied_again_is_the_new_one(
    kindling: Installation, write: Callable[[str, str, int], Story], kind: str, phase: str, pods: int
) -> None:
    delete_change_and_apply_again(kindling, write(kind, phase, pods), phase)


@pytest.mark.exhaustive
@pytest.mark.parametrize("pods", [1, 2])
@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("kind", KINDS)
def test_it_is_so_at_every_phase_of_every_kind(
    kindling: Installation, write: Callable[[str, str, int], Story], kind: str, phase: str, pods: int
) -> None:
    delete_change_and_apply_again(kindling, write(kind, phase, pods), phase)


def delete_change_and_apply_again(kindling: Installation, story: Story, phase: str) -> None:
    """At this phase of the first document; the second one is followed to its end."""
    cluster, namespace = kindling.cluster, kindling.runs
    run = Run(cluster, story.kind, story.name, namespace)
    with watched(run) as versions:
        cluster.apply(story.first, namespace=namespace)
        run.wait(f"is {phase}", PHASES[phase], 240)
        first = run.get()["metadata"]["uid"]
        run.delete()
        cluster.apply(story.again, namespace=namespace)
        again = run.get()["metadata"]["uid"]
        end = run.finish()
        wait_until("nothing of the first document is left", lambda: not children(run, first), 120)
        names = [name for name in children(run, again) if again[:8] not in name]
    assert first != again and not names, names
    told = {
        uid: [each.get("status", {}) for each in versions if each["metadata"]["uid"] == uid] for uid in (first, again)
    }
    before, after = (identities(told[uid]) for uid in (first, again))
    assert after and not before & after, f"told of both: {before & after}"
    assert len({status["key"] for status in told[again] if "key" in status}) == 1
    assert [(each["attempt"], each["reason"]) for each in end["attempts"]] == [(1, "Completed")], end["attempts"]
    if story.kind == "DatasetBuild":
        assert end["result"]["vocabSize"] == 500 + CHANGED
    else:
        steps = {status.get("progress", {}).get("steps", 0) for status in told[again]}
        assert steps <= {0, CHANGED}, "progress is that of the new document"
        assert end["result"]["steps"] == CHANGED
    run.delete()


def identities(statuses: list[Object]) -> set[str]:
    """All that names work, or what came of it, in statuses of one document."""
    found = {status.get("key", "") for status in statuses}
    for status in statuses:
        result, checkpoint = status.get("result", {}), status.get("checkpoint", {})
        found |= {result.get("digest", ""), result.get("uri", ""), checkpoint.get("digest", "")}
        found.add(checkpoint.get("uri", "").partition("/checkpoints/")[0])
        found |= {attempt.get("uid", "") for attempt in status.get("attempts", [])}
    return found - {""}


def children(run: Run, uid: str) -> list[str]:
    """What there is of a document with this UID."""
    kinds = "jobs,rayjobs,configmaps,services,networkpolicies,pods"
    return [each["metadata"]["name"] for each in run.cluster.find(kinds, run.namespace, f"kindling.dev/uid={uid}")]


@contextmanager
def watched(run: Run) -> Iterator[list[Object]]:
    """Afterwards has all versions of the document that the API server has shown meanwhile, whatever their UID."""
    cluster: Cluster = run.cluster
    command = [str(program("kubectl")), f"--kubeconfig={cluster.kubeconfig}", "get", run.kind, "-n", run.namespace]
    command += ["--watch", "--output=json", f"--field-selector=metadata.name={run.name}"]
    with (
        tempfile.TemporaryFile("w+") as seen,
        subprocess.Popen(command, stdout=seen, stderr=subprocess.DEVNULL) as process,
    ):
        versions: list[Object] = []
        try:
            yield versions
        finally:
            process.terminate()
            process.wait()
            seen.seek(0)
            versions += documents(seen.read())


def documents(text: str) -> Iterator[Object]:
    """The JSON documents that follow one another in a text; the last may still be under way."""
    decoder, position = json.JSONDecoder(), 0
    while position < len(text):
        try:
            document, position = decoder.raw_decode(text, position)
        except json.JSONDecodeError:
            return
        yield document
        position += len(text) - position - len(text[position:].lstrip())
