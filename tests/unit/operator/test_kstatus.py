"""What Helm, Flux and Argo CD make of a document's status: their own code reads what the operator writes."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kindling_api.crds import crd
from kubenode.places import TOOLS
from kubenode.tools import HEALTH, install

Make = Callable[..., Any]

LUA = Path(__file__).parents[3] / "charts" / "kindling" / "files" / "health.lua"


@pytest.fixture(scope="module")
def verdicts() -> Callable[[list[Any]], list[tuple[str, str]]]:
    """What kstatus and Argo CD say of objects."""
    if shutil.which("go") is None and not (TOOLS / "health").exists():
        pytest.skip("Go, to build the readers, is not on this machine")
    install(HEALTH)

    def read(objects: list[Any]) -> list[tuple[str, str]]:
        command = [str(TOOLS / "health"), str(LUA)]
        said = subprocess.run(command, input=json.dumps(objects), capture_output=True, text=True, check=True)
        return [(one["kstatus"], one["argo"]) for one in json.loads(said.stdout)]

    return read


def unseen(cluster: Make) -> Any:
    run = cluster()
    run.resource["status"] = crd("PretrainRun")["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"][
        "status"
    ]["default"]
    return run


def refused(cluster: Make) -> Any:
    run = cluster(training={"steps": -1})
    run.reconcile()
    return run


def still(cluster: Make, **spec: Any) -> Any:
    run = cluster(**spec)
    run.reconcile()
    return run


def begun(cluster: Make, **spec: Any) -> Any:
    run = cluster(**spec)
    run.run()
    return run


def slowed(cluster: Make) -> Any:
    run = begun(cluster)
    run.says(20, stragglers=[{"rank": 1, "node": 1, "factor": 2.0, "step": 20}])
    run.reconcile()
    return run


def edited(cluster: Make) -> Any:
    run = begun(cluster)
    run.edit(suspend=True)
    return run


def restarting(cluster: Make) -> Any:
    run = begun(cluster)
    run.fails()
    run.job_ends()
    run.reconcile()
    return run


def failed(cluster: Make) -> Any:
    run = begun(cluster)
    run.fails(code=2, reason="UserError")
    run.job_ends()
    run.reconcile()
    return run


def succeeded(cluster: Make, kind: str = "PretrainRun", **spec: Any) -> Any:
    run = cluster(kind, **spec)
    run.run()
    run.succeeds()
    run.reconcile()
    return run


def stuck(cluster: Make) -> Any:
    run = succeeded(cluster, "AlignmentRun", serve={})
    (deployment,) = (item for key, item in run.objects.items() if key.kind == "Deployment")
    message = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "it is stuck"}
    deployment["status"] = {"conditions": [message]}
    run.reconcile()
    return run


SITUATIONS: list[tuple[Callable[[Make], Any], str, str]] = [
    (unseen, "InProgress", "Progressing"),
    (refused, "Failed", "Degraded"),
    (lambda cluster: still(cluster, dataset={"name": "words"}), "InProgress", "Progressing"),
    (lambda cluster: begun(cluster, queue="ml"), "InProgress", "Progressing"),
    (begun, "InProgress", "Progressing"),
    (edited, "InProgress", "Progressing"),
    (slowed, "InProgress", "Progressing"),
    (lambda cluster: still(cluster, suspend=True), "Current", "Suspended"),
    (restarting, "InProgress", "Progressing"),
    (failed, "Failed", "Degraded"),
    (succeeded, "Current", "Healthy"),
    (lambda cluster: succeeded(cluster, "AlignmentRun", serve={}), "InProgress", "Progressing"),
    (stuck, "Failed", "Degraded"),
]


@pytest.mark.slow
def test_others_see_what_is_in_progress_what_is_current_and_what_has_failed(
    cluster: Make, verdicts: Callable[[list[Any]], list[tuple[str, str]]]
) -> None:
    runs = [make(cluster).resource for make, _, _ in SITUATIONS]
    said = list(zip((run["status"].get("phase") for run in runs), verdicts(runs), strict=True))
    expected = list(zip((run["status"].get("phase") for run in runs), (each[1:] for each in SITUATIONS), strict=True))
    assert said == expected
