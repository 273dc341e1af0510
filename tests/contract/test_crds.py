"""crds/*.yaml: equal to what the models say, structural, described, bounded, and small enough for kubectl apply."""

from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from kindling_api.crds import FOLDER, crd, path_of, text_of
from kindling_api.documents import KINDS

LARGEST = 200_000
"""Bytes; `kubectl apply` keeps a copy in an annotation, which holds 262,144."""

VALUE_KEYWORDS = {"type", "x-kubernetes-int-or-string"}


def levels(schema: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every level of a schema with its path."""
    yield path, schema
    for name, part in schema.get("properties", {}).items():
        yield from levels(part, f"{path}.{name}")
    for inner in ("items", "additionalProperties"):
        if inner in schema:
            yield from levels(schema[inner], f"{path}[]")


def schema_of(kind: str) -> dict[str, Any]:
    return crd(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]  # type: ignore[no-any-return]


LEVELS = [(kind, path, part) for kind in KINDS for path, part in levels(schema_of(kind), kind)]


@pytest.mark.parametrize("kind", KINDS)
def test_the_committed_file_is_what_the_models_generate(kind: str) -> None:
    assert path_of(kind).read_text(encoding="utf-8") == text_of(kind), "run `make crds`"


@pytest.mark.parametrize("kind", KINDS)
def test_the_charts_copy_is_the_same(kind: str) -> None:
    copy = FOLDER.parent / "charts" / "kindling" / "files" / "crds" / path_of(kind).name
    assert copy.read_bytes() == path_of(kind).read_bytes(), "run `make crds`"


def test_there_is_no_other_file_beside_the_generated_ones() -> None:
    assert {path.name for path in FOLDER.iterdir()} == {path_of(kind).name for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_is_small_enough_and_parses_to_the_definition(kind: str) -> None:
    assert len(text_of(kind).encode()) < LARGEST
    assert yaml.safe_load(text_of(kind)) == crd(kind)


def test_every_field_is_described() -> None:
    leaves = [path for _, path, part in LEVELS if "description" not in part and not path.endswith(("[]", ".metadata"))]
    assert leaves == []


def test_every_level_has_one_type_and_no_reference() -> None:
    wrong = [path for _, path, part in LEVELS if len(VALUE_KEYWORDS & set(part)) != 1]
    forbidden = [path for _, path, part in LEVELS if {"$ref", "$defs", "allOf", "oneOf", "title", "const"} & set(part)]
    assert (wrong, forbidden) == ([], [])


def test_every_text_list_and_map_of_a_spec_has_a_bound() -> None:
    unbounded = []
    for _, path, part in LEVELS:
        if ".spec" not in path:
            continue
        if (part.get("type") == "string" or "x-kubernetes-int-or-string" in part) and "enum" not in part:
            unbounded += [path] if "maxLength" not in part else []
        if part.get("type") == "array":
            unbounded += [path] if "maxItems" not in part else []
        if "additionalProperties" in part:
            unbounded += [path] if "maxProperties" not in part else []
    assert unbounded == []


def test_every_number_of_a_spec_has_a_lower_bound() -> None:
    numbers = [
        (path, part) for _, path, part in LEVELS if part.get("type") in ("integer", "number") and ".spec" in path
    ]
    assert [path for path, part in numbers if "minimum" not in part] == []


def test_no_bound_that_excludes_itself_is_a_fraction() -> None:
    """kube-openapi compares a whole value (0) with such a bound (below 0.5) as integers, and refuses it."""
    excluding = [(path, part) for _, path, part in LEVELS if part.get("exclusiveMaximum")]
    assert [path for path, part in excluding if part["maximum"] != int(part["maximum"])] == []


def test_a_status_has_no_defaults_and_conditions_are_keyed_by_type() -> None:
    defaults = [(path, part["default"]) for _, path, part in LEVELS if ".status" in path and "default" in part]
    assert defaults == [(f"{kind}.status", {"observedGeneration": -1}) for kind in KINDS], "for kstatus alone"
    for kind in KINDS:
        conditions = schema_of(kind)["properties"]["status"]["properties"]["conditions"]
        assert (conditions["x-kubernetes-list-type"], conditions["x-kubernetes-list-map-keys"]) == ("map", ["type"])


@pytest.mark.parametrize(
    ("kind", "short_name", "columns"),
    [
        ("DatasetBuild", "dsb", "Phase Progress Stage Documents ETA Attempt Age"),
        ("PretrainRun", "ptr", "Phase Progress Stage Step Loss ETA Attempt Age"),
        ("AlignmentRun", "alr", "Phase Progress Stage Step Loss Reward ETA Attempt Age"),
    ],
)
def test_names_category_and_columns_are_those_that_users_know(kind: str, short_name: str, columns: str) -> None:
    spec = crd(kind)["spec"]
    version = spec["versions"][0]
    assert (spec["names"]["shortNames"], spec["names"]["categories"]) == ([short_name], ["kindling"])
    assert [column["name"] for column in version["additionalPrinterColumns"]] == columns.split()
    assert version["subresources"] == {"status": {}}


def test_every_column_reads_a_field_of_the_status() -> None:
    for kind in KINDS:
        paths = {path for path, _ in levels(schema_of(kind), "")}
        columns = crd(kind)["spec"]["versions"][0]["additionalPrinterColumns"]
        assert {column["jsonPath"] for column in columns} - paths == {".metadata.creationTimestamp"}
