"""values.schema.json: what is documented is taken, and anything else is refused."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

CHART = Path(__file__).parents[2] / "charts" / "kindling"
VALUES = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
SCHEMA = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
VALIDATOR = jsonschema.Draft7Validator(SCHEMA)
FREE = {("operator", "affinity"), ("global",)}
"""What is passed on as it is, or belongs to other charts."""

Path_ = tuple[str, ...]


def refused(values: Mapping[str, Any]) -> bool:
    return not VALIDATOR.is_valid(values)


def places(value: Any, path: Path_ = ()) -> Iterator[tuple[Path_, Any]]:
    """Every place in the values with what stands there."""
    yield path, value
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from places(inner, (*path, name))


def changed(path: Path_, value: Any) -> dict[str, Any]:
    """The default values with another one at a place."""
    values: dict[str, Any] = copy.deepcopy(VALUES)
    holder = values
    for name in path[:-1]:
        holder = holder[name]
    holder[path[-1]] = value
    return values


def wrong(value: Any) -> list[Any]:
    """Values of types that another value is not of."""
    others = [7.5, True, "no such word !", ["x", 1], {"unknown": 1}, None]
    return [other for other in others if type(other) is not type(value)]


PLACES = [(path, value) for path, value in places(VALUES) if path and path not in FREE]


def test_the_schema_is_one_and_takes_the_defaults() -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    VALIDATOR.validate(VALUES)


def test_every_value_has_a_default_and_every_default_is_described() -> None:
    assert set(VALUES) == set(SCHEMA["properties"])


def test_a_value_of_another_type_is_refused_wherever_it_stands() -> None:
    mutants = [(path, other) for path, value in PLACES for other in wrong(value)]
    assert len(mutants) > 300
    assert [(".".join(path), other) for path, other in mutants if not refused(changed(path, other))] == []


def test_an_unknown_field_is_refused_wherever_it_stands() -> None:
    misspelt = [(*path, "mispelt") for path, value in places(VALUES) if isinstance(value, dict) and path not in FREE]
    assert [".".join(path) for path in misspelt if not refused(changed(path, 1))] == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("watch", "namespaces"), ["Team-A"]),
        (("watch", "namespaces"), ["a", "a"]),
        (("images", "pullPolicy"), "Sometimes"),
        (("images", "tag"), "a b"),
        (("images", "operator", "digest"), "sha256:0123"),
        (("images", "trainer", "name"), "trainer:latest"),
        (("images", "allowedPrefixes"), ["registry.example.com"]),
        (("rewards", "allowedModules"), ["team.rewards:score"]),
        (("rewards", "allowedModules"), ["team..rewards"]),
        (("rewards", "allowedModules"), ["*"]),
        (("rewards", "allowedModules"), [""]),
        (("huggingFace", "endpoint"), "hub.example.com"),
        (("storage", "uri"), "bucket/prefix"),
        (("storage", "uri"), "file:///data"),
        (("storage", "endpoint"), "minio:9000"),
        (("storage", "existingSecret"), "No_Secret"),
        (("operator", "replicas"), 0),
        (("operator", "replicas"), "2"),
        (("operator", "resources", "limits"), {"cpus": 1}),
        (("operator", "resources", "limits", "memory"), "1 GB"),
        (("operator", "tolerations"), [{"key": "a", "operator": "Maybe"}]),
        (("runs", "lostNodeSeconds"), 0),
        (("metrics", "monitors", "interval"), "30 seconds"),
        (("networkPolicy", "apiServerPorts"), []),
        (("networkPolicy", "apiServerPorts"), [70000]),
        (("minio", "bucket"), "My_Bucket"),
        (("minio", "persistence", "size"), "big"),
    ],
    ids=lambda part: str(part)[:40],
)
def test_a_value_that_cannot_work_is_refused(path: Path_, value: Any) -> None:
    assert refused(changed(path, value))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_helm_applies_the_schema(template: Callable[..., str]) -> None:
    with pytest.raises(ValueError, match="replicas"):
        template({"operator": {"replicas": 0}})


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            {"watch": {"cluster": True, "namespaces": ["a"]}},
            "watch.namespaces and watch.cluster are both given",
        ),
        (
            {"storage": {"uri": "s3://b", "existingSecret": "s", "credentials": {"accessKeyId": "i"}}},
            "storage.credentials and storage.existingSecret are both given",
        ),
        (
            {"storage": {"uri": "s3://b", "credentials": {"accessKeyId": "i"}}},
            "storage.credentials holds half a key",
        ),
        ({"storage": {"endpoint": "http://s3"}}, "storage.uri is missing"),
        ({"storage": {"uri": "s3://b", "namespaces": ["a"]}}, "storage.namespaces is given without watch.cluster"),
    ],
    ids=lambda part: part if isinstance(part, str) else "",
)
def test_values_that_contradict_each_other_are_refused_with_what_to_do(
    template: Callable[..., str], values: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=said) as refusal:
        template(values)
    assert any(remedy in str(refusal.value) for remedy in ("Remove", "Add", "give both"))
