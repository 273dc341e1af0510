"""The loader and the API server must accept and refuse the same manifests: manifests.yaml holds what each says."""

from pathlib import Path
from typing import Any

import pytest

from kindling_api.crds import crd
from kindling_api.documents import KINDS, load, parse
from kindling_api.errors import SpecError
from kindling_api.v1alpha1.resources import MUTABLE_FIELDS
from kindling_api.yaml_source import read_yaml

TABLE = Path(__file__).parent / "manifests.yaml"
ROWS: dict[str, list[dict[str, Any]]] = read_yaml(TABLE.read_text(encoding="utf-8"), TABLE.name)[0].value


def named(section: str) -> Any:
    return pytest.mark.parametrize("row", [pytest.param(row, id=row["name"]) for row in ROWS[section]])


def manifest(row: dict[str, Any], spec: dict[str, Any]) -> dict[str, Any]:
    metadata = row.get("metadata", {"name": "x"})
    return {"apiVersion": "kindling.dev/v1alpha1", "kind": row["kind"], "metadata": metadata, "spec": spec}


def rules_in(schema: Any) -> list[dict[str, str]]:
    """All CEL rules in a schema, at any depth."""
    if isinstance(schema, list):
        return [rule for item in schema for rule in rules_in(item)]
    if not isinstance(schema, dict):
        return []
    own = schema.get("x-kubernetes-validations", [])
    return [*own, *(rule for value in schema.values() for rule in rules_in(value))]


@named("good")
def test_a_good_manifest_is_accepted(row: dict[str, Any]) -> None:
    assert parse(manifest(row, row["spec"])).kind == row["kind"]


@pytest.mark.parametrize("row", [pytest.param(row, id=row["name"]) for row in ROWS["bad"] + ROWS["loader_only"]])
def test_a_bad_manifest_is_refused_with_the_right_sentence(row: dict[str, Any]) -> None:
    with pytest.raises(SpecError) as refusal:
        parse(manifest(row, row["spec"]), source="file")
    assert str(refusal.value) == f"file:1: {row['loader']}"


@named("bad")
def test_the_api_server_has_a_rule_for_what_a_bad_manifest_breaks(row: dict[str, Any]) -> None:
    messages = [rule["message"] for rule in rules_in(crd(row["kind"]))]
    by_structure = any(
        words in row["server"] for words in ("unknown field", " in body ", "Invalid", "Unsupported", "Req")
    )
    assert by_structure or any(row["server"] in message for message in messages)


@named("changes")
def test_both_ends_of_a_change_are_good_manifests(row: dict[str, Any]) -> None:
    for end in ("before", "after"):
        parse(manifest(row, row[end]))


@named("changes")
def test_a_change_is_refused_by_a_rule_of_the_field_that_changes(row: dict[str, Any]) -> None:
    messages = [rule["message"] for rule in rules_in(crd(row["kind"])) if "oldSelf" in rule["rule"]]
    assert ("server" not in row) or row["server"] in messages


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_of_a_spec_is_immutable_unless_it_is_said_to_be_mutable(kind: str) -> None:
    schema = crd(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    guarded = {rule["message"].split(" ")[0] for rule in rules_in(schema) if "oldSelf" in rule["rule"]}
    assert guarded == set(schema["properties"]) - set(MUTABLE_FIELDS)


def test_all_faults_of_a_file_are_told_at_once(tmp_path: Path) -> None:
    texts = []
    for row in ROWS["bad"]:
        texts.append(repr(manifest(row, row["spec"])).replace("True", "true").replace("False", "false"))
    file = tmp_path / "all.yaml"
    file.write_text("\n---\n".join(texts), encoding="utf-8")
    with pytest.raises(SpecError) as refusal:
        load([file])
    told = [line.split(": ", 1)[1] for line in str(refusal.value).splitlines()]
    assert [sentence for sentence in told if "a second time" not in sentence] == [row["loader"] for row in ROWS["bad"]]
