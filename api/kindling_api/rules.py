"""Rules that hold between fields, said once for both places that check them.

The loader checks them through pydantic validators; the API server checks them as CEL, which `crds.py` takes from the
same classes. `OneOf` is the commonest: a union written as an object with exactly one key (`tokenizer: {char: {}}`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

from pydantic import ConfigDict, GetJsonSchemaHandler, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from kindling_api.base import Spec
from kindling_api.errors import finding


def cel(*rules: tuple[str, str]) -> ConfigDict:
    """A model's configuration carrying CEL `(rule, message)` pairs into its schema.

    Each rule given here has a Python validator beside it, in the same class.
    """
    validations = [{"rule": rule, "message": message} for rule, message in rules]
    return ConfigDict(json_schema_extra={"x-kubernetes-validations": validations})  # type: ignore[dict-item]


def exactly_one(choices: Sequence[str], given: Sequence[str]) -> str:
    """What is wrong where several or none of `choices` were given."""
    return finding(
        found=" and ".join(given) or "none of them",
        allowed=f"exactly one of {', '.join(choices)}",
        remedy=f"keep one of {', '.join(given)}" if given else f"add {choices[0]}" + " or another" * (len(choices) > 1),
    )


def check_one(spec: Spec, *names: str) -> None:
    """Raises ValueError unless exactly one of these fields (Python names) is given."""
    aliases = {name: type(spec).model_fields[name].alias or name for name in names}
    given = [alias for name, alias in aliases.items() if getattr(spec, name) is not None]
    if len(given) != 1:
        raise ValueError(exactly_one(list(aliases.values()), given))


def check_order(lower: str, least: float, upper: str, most: float) -> None:
    """Raises ValueError where a minimum is above the maximum of the same measure: nothing would pass."""
    if least > most:
        found, allowed = f"{lower} {least:g} and {upper} {most:g}", f"{lower} of at most {upper}"
        raise ValueError(finding(found=found, allowed=allowed, remedy=f"lower {lower}, or raise {upper}"))


class OneOf(Spec):
    """An object of which exactly one field is given; the field's name says the variant."""

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        check_one(self, *type(self).model_fields)
        return self

    @classmethod
    def alias_of(cls, name: str) -> str:
        """The name a user writes for the field `name`."""
        return cls.model_fields[name].alias or name

    @property
    def chosen(self) -> tuple[str, Any]:
        """The variant's name as a user writes it, and its value."""
        for name in type(self).model_fields:
            if (value := getattr(self, name)) is not None:
                return self.alias_of(name), value
        raise AssertionError("unreachable: _exactly_one holds")

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """The schema with the same rule for the API server."""
        schema = handler.resolve_ref_schema(handler(core_schema))
        names = [cls.alias_of(name) for name in cls.model_fields]
        given = ", ".join(f"has(self.{cel_name(name)})" for name in names)
        message = f"exactly one of {', '.join(names)} must be given"
        schema["x-kubernetes-validations"] = [
            {"rule": f"[{given}].filter(given, given).size() == 1", "message": message}
        ]
        return schema


def cel_name(field: str) -> str:
    """The field's name in a CEL rule, in which CEL's own words are escaped."""
    return f"__{field}__" if field in CEL_WORDS else field


CEL_WORDS = frozenset(
    {
        "true", "false", "null", "in", "as", "break", "const", "continue", "else", "for", "function", "if", "import",
        "let", "loop", "package", "namespace", "return", "var", "void", "while",
    }
)  # fmt: skip
"""Words that CEL reserves (Kubernetes, "CustomResourceDefinitions: validation rules", escaping)."""
