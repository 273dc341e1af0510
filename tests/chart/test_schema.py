"""Whatever the chart or the operator installs is what Kubernetes' own schema allows, without an unknown field."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

TESTS = Path(__file__).resolve().parents[1]
MODULE = TESTS / "cluster" / "go" / "node"
"""The Go module that says which Kubernetes the tests run."""
FILES = sorted([*(TESTS / "chart" / "golden").glob("*.yaml"), *(TESTS / "golden").glob("*.yaml")])
OTHERS = {"ServiceMonitor", "PodMonitor", "RayJob"}
"""Kinds that Kubernetes does not know by itself."""

Schema = dict[str, Any]


@pytest.fixture(scope="module")
def kubernetes() -> Schema:
    """Kubernetes' OpenAPI definitions as a JSON schema that refuses unknown fields."""
    if shutil.which("go") is None:
        pytest.skip("Kubernetes' schema is in its Go module, and Go is not on this machine")
    command = ["go", "mod", "download", "-json", "k8s.io/kubernetes"]
    module = json.loads(subprocess.run(command, cwd=MODULE, check=True, capture_output=True).stdout)
    swagger = json.loads((Path(module["Dir"]) / "api" / "openapi-spec" / "swagger.json").read_text(encoding="utf-8"))
    definitions: dict[str, Schema] = swagger["definitions"]
    for schema in definitions.values():
        if "properties" in schema:
            schema["additionalProperties"] = False
        if schema.get("format") == "int-or-string":
            schema["type"] = ["integer", "string"]
    return definitions


def name_of(item: Schema, kubernetes: dict[str, Schema]) -> str:
    """The definition of an object's kind."""
    group, _, version = item["apiVersion"].rpartition("/")
    wanted = {"group": group, "version": version, "kind": item["kind"]}
    return next(
        name for name, schema in kubernetes.items() if wanted in schema.get("x-kubernetes-group-version-kind", ())
    )


@pytest.mark.slow
@pytest.mark.timeout(900)  # the first may download the module
@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(TESTS)))
def test_every_object_is_valid(kubernetes: dict[str, Schema], file: Path) -> None:
    items = [item for item in yaml.safe_load_all(file.read_text(encoding="utf-8")) if item]
    for item in items:
        if item["kind"] not in OTHERS:
            schema = {"$ref": f"#/definitions/{name_of(item, kubernetes)}", "definitions": kubernetes}
            errors = list(jsonschema.Draft4Validator(schema).iter_errors(item))
            assert [f"{'.'.join(map(str, error.path))}: {error.message[:200]}" for error in errors] == []
