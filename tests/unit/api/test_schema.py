from typing import Annotated, Literal

import pytest
from pydantic import Field

from kindling_api.base import Spec
from kindling_api.quantities import INT_OR_STRING, ByteSize, Count
from kindling_api.rules import OneOf, cel
from kindling_api.schema import at, structural_schema


class Inner(Spec):
    """Something inside. It has a second sentence."""

    size: Annotated[int, Field(ge=0, lt=10)] = 3
    """How large."""


class Choice(OneOf):
    """One of two."""

    function: Inner | None = None
    """A word that CEL reserves."""
    other: Inner | None = None
    """The other."""


class Example(Spec):
    """An example."""

    model_config = cel(("self.rate < 0.5", "rate must be small"))

    rate: Annotated[float, Field(gt=0, le=1)]
    """A rate."""
    count: Count = 1000
    """A count."""
    memory: ByteSize = "1Gi"
    """A size."""
    data: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """An integer or a word."""
    inner: Inner = Inner(size=4)
    """Its inside."""
    choice: Choice = Choice(other=Inner())
    """A choice."""
    pair: Annotated[tuple[float, float], Field(min_length=2, max_length=2)] = (0.5, 0.9)
    """Two numbers."""
    names: Annotated[tuple[str, ...], Field(max_length=3)] = ()
    """Names."""
    labels: Annotated[dict[str, str], Field(max_length=3)] = {}
    """Labels."""
    maybe_later: Inner | None = None
    """Something inside."""
    const: Literal["v1"] = "v1"
    """A constant."""


SCHEMA = structural_schema(Example)


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("rate", {"description": "A rate.", "type": "number", "minimum": 0, "maximum": 1, "exclusiveMinimum": True}),
        (
            "data",
            {
                "description": "An integer or a word.",
                "pattern": "^(auto)$",
                "minimum": 1,
                "maxLength": 4,
                "default": "auto",
                **INT_OR_STRING,
            },
        ),
        (
            "pair",
            {
                "description": "Two numbers.",
                "type": "array",
                "minItems": 2,
                "maxItems": 2,
                "default": [0.5, 0.9],
                "items": {"type": "number"},
            },
        ),
        (
            "labels",
            {
                "description": "Labels.",
                "type": "object",
                "maxProperties": 3,
                "default": {},
                "additionalProperties": {"type": "string"},
            },
        ),
        ("const", {"description": "A constant.", "type": "string", "enum": ["v1"], "default": "v1"}),
    ],
)
def test_a_field_becomes_one_level_of_openapi(field: str, expected: dict) -> None:
    assert SCHEMA["properties"][field] == expected


def test_a_default_holds_only_what_differs_further_down() -> None:
    assert SCHEMA["properties"]["inner"]["default"] == {"size": 4}
    assert SCHEMA["properties"]["choice"]["default"] == {"other": {}}


def test_an_optional_field_is_its_type_without_a_default() -> None:
    assert SCHEMA["properties"]["maybeLater"] == {
        "description": "Something inside. It has a second sentence.",
        "type": "object",
        "properties": {
            "size": {"description": "How large.", "type": "integer", "minimum": 0, "maximum": 9, "default": 3}
        },
    }


def test_descriptions_of_a_field_and_of_its_type_are_joined() -> None:
    assert SCHEMA["properties"]["inner"]["description"] == "Its inside. Something inside. It has a second sentence."


def test_rules_are_taken_along_and_reserved_words_escaped() -> None:
    assert SCHEMA["x-kubernetes-validations"] == [{"rule": "self.rate < 0.5", "message": "rate must be small"}]
    assert SCHEMA["properties"]["choice"]["x-kubernetes-validations"] == [
        {
            "rule": "[has(self.__function__), has(self.other)].filter(given, given).size() == 1",
            "message": "exactly one of function, other must be given",
        }
    ]


def test_only_required_fields_are_required() -> None:
    assert SCHEMA["required"] == ["rate"]


@pytest.mark.parametrize(
    ("path", "description"),
    [
        (("inner", "size"), "How large."),
        (("choice", "other", "size"), "How large."),
        ((), "An example."),
    ],
    ids=str,
)
def test_the_schema_at_a_path_is_found(path: tuple[str, ...], description: str) -> None:
    part = at(SCHEMA, path)
    assert part is not None and part["description"] == description


@pytest.mark.parametrize("path", [("nothing",), ("inner", "nothing"), ("rate", 0), ("labels", "a", "b")], ids=str)
def test_there_is_no_schema_where_nothing_may_be(path: tuple[str | int, ...]) -> None:
    assert at(SCHEMA, path) is None
