"""The key of the store is changed under whatever runs: all goes on, with the Secret as it is then."""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Iterator
from typing import Any

import pytest
import yaml

from kubenode.client import Object, wait_until
from kubenode.installation import Installation
from kubenode.store import SECRET_KEY, Store
from runs import FAST, ONE_POD, SECRET, Run, aligned, dataset, dialogues, pretraining, storage, upload
from test_alignment import ASK

SEEN, RENEWED = 120, 150
"""Seconds: until a run says that it is refused, and from a changed Secret to the next checkpoint."""


@pytest.fixture
def rotating(kindling: Installation, minio: Store) -> Iterator[Store]:
    """The store; after the test it has the password of before."""
    yield minio
    if minio.password != SECRET_KEY:
        minio.change_password(SECRET_KEY)
        put_secret(kindling, SECRET_KEY)


@pytest.mark.timeout(1200)
@pytest.mark.serial
def test_what_runs_goes_on_when_the_key_is_changed(kindling: Installation, rotating: Store, corpus: Run) -> None:
    runs = {"tuned": start(kindling, corpus, "tuned")}
    try:
        runs["tuned"].finish()
        runs |= {name: start(kindling, corpus, name) for name in ("trained", "by-ray")}
        runs["tuned"].wait("is served", lambda _: runs["tuned"].condition("Serving").get("status") == "True", 180)
        runs["trained"].wait("saved something", lambda status: saved(status) > 0, 180)
        runs["by-ray"].wait("has its nodes", lambda status: status.get("phase") == "Running", 180)
        runs["by-one"] = start(kindling, corpus, "by-one")
        for name in ("by-ray", "by-one"):
            runs[name].wait("is at work", lambda status: status.get("progress", {}).get("percent", 0) > 0, 180)
        at_work = [name for name, run in runs.items() if run.status()["phase"] == "Running"]
        assert "trained" in at_work, runs["trained"].describe()

        rotating.change_password("another-secret")
        refused = runs["trained"].wait("says that it is refused", lambda _: refusal(runs["trained"]), SEEN)
        print(f"at work: {at_work}; {refused['message']}")
        before, changed = saved(runs["trained"].status()), time.monotonic()
        put_secret(kindling, rotating.password)

        status = runs["trained"].wait("saves again", lambda status: saved(status) > before and status, RENEWED)
        print(f"saved again {time.monotonic() - changed:.0f} s after the Secret was changed, {endings(status)}")
        assert len(status["attempts"]) == 1, "the pods that ran took the new key"
        for name in ("by-ray", "by-one"):
            end = runs[name].finish()
            print(f"{name}: {endings(end)}")
            assert end["restarts"] == 0
            assert end["result"]["digest"] == corpus.status()["result"]["digest"]
        assert_served(runs["tuned"])
    finally:
        for run in runs.values():
            run.delete()


def test_a_key_that_never_worked_ends_a_run_at_once(kindling: Installation, minio: Store) -> None:
    kindling.cluster.apply(minio.secret("mistyped", "a-mistyped-secret"), namespace=kindling.runs)
    spec = {"storage": storage(kindling.bucket, "mistyped", secret="mistyped")}
    kindling.cluster.apply(dataset("mistyped", **spec), namespace=kindling.runs)
    run = Run(kindling.cluster, "DatasetBuild", "mistyped", kindling.runs)
    try:
        run.wait("has failed", lambda status: status.get("phase") == "Failed", 60)
        failed = run.condition("Failed")
        assert failed["reason"] == "UserError" and len(run.status()["attempts"]) == 1
        assert "SignatureDoesNotMatch" in failed["message"] and "mistyped-secret" not in failed["message"]
    finally:
        run.delete()


@pytest.mark.exhaustive
@pytest.mark.timeout(2700)
def test_a_key_that_is_wrong_for_good_ends_a_run_that_had_saved(
    kindling: Installation, minio: Store, corpus: Run
) -> None:
    secret = "own-key"
    kindling.cluster.apply(minio.secret(secret, minio.password), namespace=kindling.runs)
    own = {"storage": storage(kindling.bucket, "wrong-for-good", secret=secret), **ONE_POD}
    document = pretraining("wrong-for-good", corpus.name, training={"steps": 60_000, **FAST},
                           checkpoint={"every": 20}, **own)  # fmt: skip
    kindling.cluster.apply(document, namespace=kindling.runs)
    run = Run(kindling.cluster, "PretrainRun", "wrong-for-good", kindling.runs)
    try:
        run.wait("saved something", lambda status: saved(status) > 0, 180)
        kindling.cluster.apply(minio.secret(secret, "another-secret"), namespace=kindling.runs)
        told = run.wait("says that it is refused", lambda _: refusal(run), SEEN + RENEWED)  # kubelet brings it
        status = run.wait("has failed", lambda status: status.get("phase") == "Failed" and status, 2400)
        failed = run.condition("Failed")
        print(f"{told['message']}; then {endings(status)}, and {failed['message']}")
        assert failed["reason"] == "UserError" and "another-secret" not in failed["message"]
        assert len(status["attempts"]) > 2 and saved(status) > 0
    finally:
        run.delete()


def start(kindling: Installation, corpus: Run, name: str) -> Run:
    """One of the runs that the key is changed under; each keeps its results at a place of its own."""
    spec: dict[str, Any] = {"storage": storage(kindling.bucket, f"keys/{name}")}
    engine = {"resources": {"cpu": "500m", "memory": "2Gi"}}
    few = {"training": {"steps": 10, **FAST}, **ONE_POD}
    many = {"training": {"steps": 20_000, **FAST}, "checkpoint": {"every": 20}}
    documents: dict[str, list[Object]] = {
        "trained": [pretraining(name, corpus.name, **many, **spec)],
        "by-one": [dataset(name, engine=engine, **spec)],
        "by-ray": [dataset(name, engine={"workers": 1, **engine}, **spec)],
        "tuned": [
            aligned(name, "tuned-base", "PretrainRun", {"sft": {}}, upload(kindling, "dialogues", dialogues())),
            pretraining("tuned-base", corpus.name, **few, **spec),
        ],
    }
    if name == "tuned":
        documents[name][0]["spec"] |= {"serve": {"resources": {"cpu": "500m", "memory": "2Gi"}}, **spec}
    kindling.cluster.apply(yaml.safe_dump_all(documents[name]), namespace=kindling.runs)
    return Run(kindling.cluster, documents[name][0]["kind"], name, kindling.runs)


def put_secret(kindling: Installation, password: str) -> None:
    """The Secret of the default storage holds this password from now on."""
    patch = json.dumps({"stringData": {"AWS_SECRET_ACCESS_KEY": password}})
    kindling.cluster.kubectl("patch", "secret", SECRET, "-n", kindling.runs, "-p", patch)


def saved(status: Object) -> int:
    """The step of the newest checkpoint."""
    step: int = status.get("checkpoint", {}).get("step", 0)
    return step


def refusal(run: Run) -> Object | None:
    """Its condition, if that says that the store refuses the key."""
    condition = run.condition("Running")
    is_told = condition.get("reason") == "StorageUnreachable" and "no answer" not in condition["message"]
    return condition if is_told else None


def endings(status: Object) -> list[str]:
    """How its attempts ended; the last may be at work."""
    return [each.get("reason", "at work") for each in status["attempts"]]


def assert_served(run: Run) -> None:
    """It answers still, and so does a pod that reads the model with the new key."""
    names = {pod["metadata"]["name"] for pod in serving(run)}
    assert ask(run)["choices"][0]["message"]["role"] == "assistant"
    run.cluster.kubectl("delete", "pods", "-n", run.namespace, *sorted(names), "--wait=false")
    wait_until("another pod serves", lambda: any(is_ready(pod) for pod in serving(run, names)), 180, run.describe)
    answer = wait_until("it answers", lambda: ask(run), 30)  # the command may run in a pod that is on its way out
    assert answer["choices"][0]["message"]["role"] == "assistant"


def serving(run: Run, but: Collection[str] = ()) -> list[Object]:
    """The pods that serve its model, but for some."""
    labels = f"kindling.dev/name={run.name},kindling.dev/component=serve"
    return [pod for pod in run.cluster.find("pods", run.namespace, labels) if pod["metadata"]["name"] not in but]


def is_ready(pod: Object) -> bool:
    """Whether it answers."""
    return any(each["type"] == "Ready" and each["status"] == "True" for each in pod["status"].get("conditions", ()))


def ask(run: Run) -> Object:
    """An answer of its model, through its Service."""
    asked = (f"service/{run.name}-serve", "--", "python", "-c", ASK, run.status()["result"]["endpoint"], run.name)
    answer: Object = json.loads(run.cluster.kubectl("exec", "-n", run.namespace, *asked))
    return answer
