"""From `helm install` to a trained model, as a user goes there."""

from __future__ import annotations

import re
import time

import pytest
import yaml

from kubenode.client import Object
from kubenode.installation import RELEASE, Installation
from kubenode.places import PROJECT
from kubenode.store import Store
from runs import Run

pytestmark = [pytest.mark.serial, pytest.mark.timeout(1800)]

EXAMPLE = PROJECT / "examples" / "01-quickstart" / "quickstart.yaml"
LONGEST = 15 * 60
"""Seconds from the installation to the model, with the images on the nodes; a quiet machine takes two minutes."""

STEPS = {"PretrainRun": 150, "AlignmentRun": 30}
"""Two cores, which the nodes, the cluster and the store share here, do not take all steps of the example in time."""


def on_two_nodes() -> list[Object]:
    """The example's documents, in their order, with the model's tensors over two pods of one core each."""
    documents: list[Object] = list(yaml.safe_load_all(EXAMPLE.read_text()))
    for document in documents:
        if steps := STEPS.get(document["kind"]):
            training = {key: value for key, value in document["spec"]["training"].items() if key != "epochs"}
            document["spec"]["training"] = {**training, "steps": steps}
            document["spec"]["resources"] = {"nodes": 2, "cpu": "900m"}
            document["spec"]["parallelism"] = {"tensor": 2}
    return documents


def test_text_becomes_a_model_on_two_nodes(kindling: Installation, minio: Store) -> None:
    cluster, namespace = kindling.cluster, kindling.runs
    kindling.helm("uninstall", RELEASE, "--wait")
    start = time.monotonic()
    assert "kubectl" in kindling.upgrade(), "the notes say the next command"
    installed = time.monotonic() - start

    documents = on_two_nodes()
    assert [document["kind"] for document in documents] == ["PretrainRun", "DatasetBuild", "AlignmentRun"], (
        "the wrong order"
    )
    cluster.kubectl("apply", "-n", namespace, "-f", "-", standard_input=yaml.safe_dump_all(documents))
    run, build, chat = (Run(cluster, each["kind"], each["metadata"]["name"], namespace) for each in documents)
    waits = run.wait("says what it waits for", lambda _: run.condition("DatasetReady"), 30)
    assert (waits["status"], waits["reason"]) == ("False", "Building") or waits["reason"] == "NotFound"

    shown = watched(run, start + LONGEST)
    print(f"installed after {installed:.0f} s, a model after {time.monotonic() - start:.0f} s")
    cluster.kubectl("wait", "pretrainrun/quickstart", "-n", namespace, "--for=condition=Succeeded", "--timeout=5s")
    cluster.kubectl("wait", "datasetbuild/quickstart", "-n", namespace, "--for=condition=Succeeded", "--timeout=5s")
    assert time.monotonic() - start <= LONGEST
    assert len(shown) >= 3, f"the steps that `kubectl get kindling` showed on the way: {shown}"

    pods = run.pods()
    assert {pod["spec"]["nodeName"] for pod in pods} == {"node-1", "node-2"}
    assert not any(pod["spec"].get("automountServiceAccountToken", True) for pod in pods)
    assert (status := run.status())["restarts"] == 0
    assert status["result"]["validationLoss"] < 6.5, "untrained, it is 7.6"
    there = minio.names(kindling.bucket)
    folders = (
        f"{folder_of(build)}manifest.json",
        f"{folder_of(run)}checkpoints/",
        f"{folder_of(run)}model/config.json",
    )
    for folder in (*folders, f"{folder_of(run)}model/model.safetensors", f"{folder_of(run)}model/tokenizer.json"):
        assert any(folder in name for name in there), folder
    aligned = chat.finish()
    print(f"a model that answers after {time.monotonic() - start:.0f} s")
    assert f"{folder_of(chat)}model/chat_template.jinja" in minio.names(kindling.bucket)
    assert aligned["result"]["steps"] == STEPS["AlignmentRun"]
    for each in (chat, run, build):
        each.delete()


def watched(run: Run, deadline: float) -> list[int]:
    """The steps that `kubectl get kindling` shows until the run is over; each line is printed once."""
    shown: dict[str, None] = {}
    while time.monotonic() < deadline:
        table = run.cluster.kubectl("get", "kindling", "-n", run.namespace)
        for line in table.splitlines():
            said = re.sub(r"\s+\S+$", "", line)  # all but the age
            if said not in shown:
                shown[said] = None
                print(line)
        if any(run.condition(end).get("status") == "True" for end in ("Succeeded", "Failed")):
            break
        time.sleep(1)
    else:
        raise AssertionError(f"not within {LONGEST} s\n{run.describe()}")
    columns = re.compile(r"pretrainrun\S+ +Running +(?P<progress>\d+) +(?P<stage>\S+) +(?P<step>\d+) +(?P<loss>[\d.]+)")
    return sorted({int(row["step"]) for line in shown if (row := columns.match(line))})


def folder_of(run: Run) -> str:
    """Where its product is, in its bucket."""
    uri: str = run.status()["result"]["uri"]
    return uri.removeprefix("s3://").partition("/")[2] + "/"
