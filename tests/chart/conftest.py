"""The chart as Helm renders it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "kindling"
TOOLS = Path(os.environ.get("KUBENODE_CACHE", Path.home() / ".cache" / "kubenode")) / "bin"
"""Where the test cluster keeps its programs."""
HELM = "helm.sh/helm/v3/cmd/helm@v3.19.0"
KUBERNETES = "1.34.0"
"""A Helm that is built from its module takes a far older one for granted."""

Object = dict[str, Any]


@pytest.fixture(scope="session")
def helm(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs Helm, which is built once where it is not installed, and knows no cluster."""
    program = shutil.which("helm") or shutil.which("helm", path=str(TOOLS)) or _build()
    nowhere = {"KUBECONFIG": os.devnull, "HOME": str(tmp_path_factory.mktemp("helm"))}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [program, *arguments]
        return subprocess.run(command, env={**os.environ, **nowhere}, capture_output=True, text=True, check=False)

    return run


@pytest.fixture(scope="session")
def template(helm: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """`template(values, namespace=…, chart=…)`: the YAML that is installed.

    Raises:
        ValueError: Helm refuses the values; what it says.
    """
    folder = tmp_path_factory.mktemp("values")

    def run(values: Mapping[str, Any] | Path, *options: str, namespace: str = "kindling", chart: Path = CHART) -> str:
        file = values if isinstance(values, Path) else folder / "values.yaml"
        if not isinstance(values, Path):
            file.write_text(yaml.safe_dump(dict(values)), encoding="utf-8")
        where = ("--namespace", namespace, "--kube-version", KUBERNETES)
        done = helm("template", "kindling", str(chart), "--values", str(file), *where, *options)
        if done.returncode != 0:
            raise ValueError(done.stderr)
        return str(done.stdout)

    return run


@pytest.fixture(scope="session")
def objects(template: Callable[..., str]) -> Callable[..., list[Object]]:
    """`objects(values, namespace=…)`: what is installed, as dictionaries."""
    return lambda *given, **options: [item for item in yaml.load_all(template(*given, **options), _Strict) if item]


class _Strict(yaml.SafeLoader):
    """Refuses a key that stands twice, as the API server does."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        assert len(keys) == len(set(keys)), f"twice in one place: {sorted(keys)}"
        return super().construct_mapping(node, deep=deep)


def _build() -> str:
    if shutil.which("go") is None:
        pytest.skip("Helm is not on this machine, nor Go to build it with")
    TOOLS.mkdir(parents=True, exist_ok=True)
    subprocess.run(["go", "install", HELM], check=True, cwd="/", env={**os.environ, "GOBIN": str(TOOLS)})
    return str(TOOLS / "helm")
