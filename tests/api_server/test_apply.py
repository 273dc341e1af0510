"""A file that is applied again, or by somebody else, changes nothing: no tool sees a difference."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from kubenode.api_server import ApiServer
from kubenode.places import TOOLS

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*/*.yaml"))

LISTS: dict[str, Any] = {
    "apiVersion": "kindling.dev/v1alpha1",
    "kind": "DatasetBuild",
    "metadata": {"name": "lists"},
    "spec": {
        "sources": [{"uri": "s3://raw/a"}, {"uri": "s3://raw/b", "weight": 2}],
        "filters": [{"gopherQuality": {"minWords": 100}}, {"c4": {}}, {"language": {}}, {"pii": {}}],
        "decontaminate": [{"uri": "s3://raw/questions"}],
    },
}


def documents(path: Path | None) -> str:
    """Those of a file; without one, a document with every list in which a default may stand."""
    return path.read_text() if path is not None else yaml.safe_dump(LISTS)


@pytest.mark.parametrize("path", [*EXAMPLES, None], ids=lambda path: path.parent.name if path else "lists")
def test_a_file_is_applied_twice_and_by_two_managers_without_a_difference(
    server: ApiServer, namespace: str, path: Path | None
) -> None:
    def kubectl(*words: str) -> list[str]:
        command = [str(TOOLS / "kubectl"), f"--kubeconfig={server.kubeconfig('admin')}", "--namespace", namespace]
        said = subprocess.run([*command, *words], input=documents(path), capture_output=True, text=True, timeout=60)
        assert said.returncode == 0, said.stderr
        return said.stdout.splitlines()

    def versions() -> list[str]:
        return kubectl("get", "kindling", "-o", "jsonpath={range .items[*]}{.metadata.resourceVersion}{'\\n'}{end}")

    made = kubectl("apply", "-f", "-")
    assert made and all(line.endswith(" created") for line in made)
    found = versions()
    assert all(line.endswith(" unchanged") for line in kubectl("apply", "-f", "-"))
    assert versions() == found
    assert kubectl("diff", "-f", "-") == []
    kubectl("delete", "-f", "-")
    kubectl("apply", "--server-side", "--field-manager=flux", "-f", "-")
    found = versions()
    for manager in ("argo", "flux", "argo"):
        kubectl("apply", "--server-side", f"--field-manager={manager}", "-f", "-")
        assert kubectl("diff", "--server-side", f"--field-manager={manager}", "-f", "-") == []
    assert len(versions()) == len(found)
