"""The loader and the API server must accept and refuse the same manifests: manifests.yaml holds what each says."""

from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft4Validator
from pydantic.alias_generators import to_snake

from kindling_api.crds import crd
from kindling_api.documents import KINDS, load, parse
from kindling_api.errors import SpecError
from kindling_api.schema import structural_schema
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
        parse(manifest(row, row["spec"]))
    assert str(refusal.value) == row["loader"]


@named("bad")
def test_the_api_server_has_a_rule_for_what_a_bad_manifest_breaks(row: dict[str, Any]) -> None:
    messages = [rule["message"] for rule in rules_in(crd(row["kind"]))]
    by_structure = any(
        words in row["server"] for words in ("unknown field", " in body ", "Invalid", "Unsupported", "Req")
    )
    assert by_structure or any(row["server"] in message for message in messages)


@named("good")
def test_a_good_manifest_fits_the_structure_that_the_api_server_checks(row: dict[str, Any]) -> None:
    assert structural_faults(row["kind"], row["spec"]) == []


@pytest.mark.parametrize("row", [row for row in ROWS["bad"] if "unknown field" in row["server"]])
def test_a_field_that_the_loader_does_not_know_has_no_place_in_the_structure(row: dict[str, Any]) -> None:
    assert any("unknown field" in fault for fault in structural_faults(row["kind"], row["spec"]))


@named("good")
def test_both_know_a_field_by_one_spelling_alone(row: dict[str, Any]) -> None:
    for path in paths_in(row["spec"]):
        name = str(path[-1])
        if (snake := to_snake(name)) == name:
            continue
        spec = respelt(row["spec"], path, snake)
        with pytest.raises(SpecError) as refusal:
            parse(manifest(row, spec))
        assert f"write `{name}`; the names of fields have no underscores" in str(refusal.value)
        assert f"unknown field {snake}" in structural_faults(row["kind"], spec)


def structural_faults(kind: str, spec: dict[str, Any]) -> list[str]:
    """What an API server has against a spec before it looks at rules; nulls are absent to it, and validation strict."""
    schema = structural_schema(KINDS[kind])["properties"]["spec"]
    errors = Draft4Validator(schema).iter_errors(without_nulls(spec))
    return [*unknown(spec, schema), *(error.message for error in errors)]


def without_nulls(value: Any) -> Any:
    if isinstance(value, list):
        return [without_nulls(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {key: without_nulls(item) for key, item in value.items() if item is not None}


def unknown(value: Any, schema: dict[str, Any]) -> list[str]:
    if isinstance(value, list):
        return [fault for item in value for fault in unknown(item, schema.get("items", {}))]
    if not isinstance(value, dict) or "additionalProperties" in schema:
        return []
    known = schema.get("properties", {})
    return [
        fault
        for key, item in value.items()
        for fault in (unknown(item, known[key]) if key in known else [f"unknown field {key}"])
    ]


def paths_in(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Where an object has a field, at any depth."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    inner = [each for key, item in items for each in paths_in(item, (*path, key))]
    return [path, *inner] if path and isinstance(path[-1], str) else inner


def respelt(value: Any, path: tuple[str | int, ...], name: str) -> Any:
    """A copy of `value` in which the field at `path` is called `name`."""
    first, *rest = path
    if isinstance(value, list):
        return [respelt(item, tuple(rest), name) if index == first else item for index, item in enumerate(value)]
    if not rest:
        return {name if key == first else key: item for key, item in value.items()}
    return {key: respelt(item, tuple(rest), name) if key == first else item for key, item in value.items()}


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
