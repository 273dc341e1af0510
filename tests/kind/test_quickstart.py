"""docs/quickstart-kind.md, from a clean checkout and no cluster to a model that answers, command by command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from document import Step

from kubenode.client import Cluster, wait_until
from kubenode.processes import run

CHANGE = "\n# changed\n"


def test_every_command_of_the_page_does_what_it_says(steps: list[Step]) -> None:
    assert {step.command: step.output[-2000:] for step in steps if step.code} == {}


def test_the_model_answers_through_its_service(steps: list[Step]) -> None:
    (asked,) = [step for step in steps if step.command.startswith("curl ")]
    answer = json.loads(asked.output[asked.output.index("{") :].splitlines()[0])
    assert answer["model"] == "quickstart-chat"
    assert answer["choices"][0]["message"]["content"].strip()


def test_the_export_is_there(steps: list[Step], checkout: Path) -> None:
    files = {path.name for path in (checkout / "quickstart-hf").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= files


@pytest.mark.timeout(1800)
def test_made_again_after_a_change_it_restarts_the_operator_alone(
    steps: list[Step], cluster: Cluster, checkout: Path, configuration: Path
) -> None:
    (before,) = operators(cluster)
    with (checkout / "operator/kindling_operator/__init__.py").open("a") as module:
        module.write(CHANGE)
    run_make(checkout, configuration)
    after = wait_until("one operator", lambda: one(operators(cluster)), 60)
    assert after != before
    module = "/opt/kindling/kindling_operator/__init__.py"
    assert cluster.kubectl("exec", "-n", "kindling", after, "--", "cat", module).endswith(CHANGE)
    run_make(checkout, configuration)
    assert operators(cluster) == [after], "nothing was changed, and nothing restarted"


def operators(cluster: Cluster) -> list[str]:
    """The operator's pods."""
    pods = cluster.find("pods", "kindling", "app.kubernetes.io/component=operator")
    return [pod["metadata"]["name"] for pod in pods]


def one(found: list[str]) -> str | None:
    """The only one, once there is no other."""
    return found[0] if len(found) == 1 else None


def run_make(checkout: Path, configuration: Path) -> None:
    """As its reader would."""
    run("env", f"KUBECONFIG={configuration}", "make", "--directory", checkout, "kind")
