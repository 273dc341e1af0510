"""The structural OpenAPI schema of a model: what an API server accepts in a CRD, and what error messages quote.

Pydantic gives JSON Schema 2020-12 with references, unions with null, and the defaults of the Python side. An API server
wants OpenAPI 3.0 without references, in which every level has one type, and applies defaults by itself, level by level.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema

from kindling_api.quantities import INT_OR_STRING

Schema = dict[str, Any]

_KEPT = (
    "description", "type", "enum", "pattern", "format", "minimum", "maximum", "minLength", "maxLength", "minItems",
    "maxItems", "maxProperties", "required", "default",
)  # fmt: skip
_STRUCTURE = ("exclusiveMinimum", "exclusiveMaximum", "anyOf", "additionalProperties", "items", "properties")


@cache
def structural_schema(model: type[BaseModel]) -> Schema:
    """The schema of `model`, self-contained. The result is shared: do not change it."""
    raw = model.model_json_schema(by_alias=True, schema_generator=_Generator)
    return _converted(raw, raw.pop("$defs", {}))


def at(schema: Schema, path: Sequence[str | int]) -> Schema | None:
    """The part of a structural schema that describes the value at `path`; None where nothing may be."""
    for part in path:
        if isinstance(part, int):
            schema = schema.get("items", {})
        else:
            schema = schema.get("properties", {}).get(part) or schema.get("additionalProperties", {})
        if not schema:
            return None
    return schema


class _Generator(GenerateJsonSchema):
    """Writes defaults as a user would: camelCase, and only what differs from the defaults further down."""

    def encode_default(self, dft: Any) -> Any:
        if isinstance(dft, BaseModel):
            return dft.model_dump(mode="json", by_alias=True, exclude_defaults=True)
        if isinstance(dft, tuple | list):
            return [self.encode_default(item) for item in dft]
        return super().encode_default(dft)


def _converted(raw: Schema, definitions: dict[str, Schema]) -> Schema:
    raw = _resolved(raw, definitions)
    if "description" in raw:
        raw["description"] = " ".join(raw["description"].split())
    convert = partial(_converted, definitions=definitions)
    if "x-kubernetes-int-or-string" in raw:
        return _ordered(raw)
    variants = raw.pop("anyOf", None)
    if variants is not None:
        return _union(raw, [convert(variant) for variant in variants])
    if "const" in raw:
        raw["enum"] = [raw.pop("const")]
    if "exclusiveMinimum" in raw:
        raw |= {"minimum": raw["exclusiveMinimum"], "exclusiveMinimum": True}
    if "exclusiveMaximum" in raw and raw["type"] == "integer":
        raw["maximum"] = raw.pop("exclusiveMaximum") - 1
    if "exclusiveMaximum" in raw:
        raw |= {"maximum": raw["exclusiveMaximum"], "exclusiveMaximum": True}
    if "prefixItems" in raw:
        raw["items"] = raw.pop("prefixItems")[0]
    if "items" in raw:
        raw["items"] = convert(raw["items"])
    if "properties" in raw:
        raw["properties"] = {name: convert(part) for name, part in raw["properties"].items()}
    if isinstance(raw.get("additionalProperties"), dict):
        raw["additionalProperties"] = convert(raw["additionalProperties"])
    else:
        raw.pop("additionalProperties", None)
    return _ordered(raw)


def _resolved(raw: Schema, definitions: dict[str, Schema]) -> Schema:
    """`raw` with its reference followed; what stands beside the reference wins, and the two descriptions are joined."""
    if "$ref" in raw:
        target = definitions[raw["$ref"].removeprefix("#/$defs/")]
        raw = {**target, **raw, "description": _joined(raw.get("description", ""), target.get("description", ""))}
    return {key: value for key, value in raw.items() if key not in ("$ref", "title")}


def _joined(field: str, model: str) -> str:
    """What a field's docstring and the one of its type say together, on one line."""
    field, model = " ".join(field.split()), " ".join(model.split())
    return model if model.startswith(field.rstrip(".")) else f"{field} {model}".rstrip()


def _union(raw: Schema, variants: list[Schema]) -> Schema:
    """`X | None` is X, or absent; an integer or a string is Kubernetes' int-or-string."""
    given = [variant for variant in variants if variant.get("type") != "null"]
    own = {key: value for key, value in raw.items() if key != "default" or value is not None}
    if len(given) == 1:
        description = _joined(own.get("description", ""), given[0].get("description", ""))
        return _ordered({**given[0], **own, "description": description})
    integer, string = given
    assert (integer["type"], string["type"]) == ("integer", "string"), "the only unions are int-or-string"
    if "enum" in string:
        string = {"pattern": "^(" + "|".join(string["enum"]) + ")$", "maxLength": max(map(len, string["enum"]))}
    bounds = {key: value for key, value in {**integer, **string}.items() if key != "type"}
    return _ordered({**bounds, **own, **INT_OR_STRING})


def _ordered(schema: Schema) -> Schema:
    """What a structural schema may hold, description first and children last."""
    first = {key: schema[key] for key in _KEPT if key in schema}
    if first.get("default", "") is None:
        del first["default"]
    rest = {key: schema[key] for key in _STRUCTURE if key in schema}
    extensions = {key: value for key, value in schema.items() if key.startswith("x-kubernetes-")}
    return {**first, **rest, **extensions}
