"""Counts, durations and byte sizes, written as Kubernetes users write them: `2.5B`, `512Ki`, `10m`, `8Gi`.

A count is stored as the integer it means, so that two ways to write one number give one key. Durations and byte sizes
stay as they were written; `seconds` reads a duration, `cores` a number of cores.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

COUNT_PATTERN = r"^[0-9]+(\.[0-9]+)?(K|M|B|G|T|Ki|Mi|Gi|Ti)?$"
DURATION_PATTERN = r"^([0-9]+(d|h|m|s))+$"
BYTES_PATTERN = r"^[0-9]+(\.[0-9]+)?(k|M|G|T|Ki|Mi|Gi|Ti)?$"
CPU_PATTERN = r"^[0-9]+(\.[0-9]+)?m?$"

INT_OR_STRING = {"anyOf": [{"type": "integer"}, {"type": "string"}], "x-kubernetes-int-or-string": True}
"""What a schema says where an integer may stand in the place of a string."""

_COUNT_UNITS = {
    "": 1, "K": 10**3, "M": 10**6, "B": 10**9, "G": 10**9, "T": 10**12,
    "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40,
}  # fmt: skip
_SECONDS = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}


def parse_count(value: Any) -> Any:
    """`"2.5B"` → 2_500_000_000; integers pass; anything else is left for pydantic to refuse.

    Raises:
        ValueError: a string that is not a count, or one that is not a whole number (`1.5`).
    """
    if not isinstance(value, str):
        return value
    if not re.fullmatch(COUNT_PATTERN, value):
        raise ValueError(f"{value!r} is not a count: write an integer, or a number with K, M, B, T, Ki, Mi or Gi")
    number = value.rstrip("".join(_COUNT_UNITS))
    count = Decimal(number) * _COUNT_UNITS[value.removeprefix(number)]
    if count != count.to_integral_value():
        raise ValueError(f"{value!r} is not a whole number")
    return int(count)


def seconds(duration: str) -> int:
    """`"1h30m"` → 5400."""
    return sum(int(number) * _SECONDS[unit] for number, unit in re.findall(r"([0-9]+)([dhms])", duration))


def cores(quantity: str) -> float:
    """`"500m"` → 0.5."""
    return int(quantity[:-1]) / 1000 if quantity.endswith("m") else float(quantity)


def _whole_as_text(value: Any) -> Any:
    """`cpu: 4` means `cpu: "4"`, as everywhere in Kubernetes."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


class IntOrString:
    """Says in a field's JSON schema that it takes an integer as well as a string."""

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern

    def __get_pydantic_json_schema__(self, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        schema = {"minimum": 0, **handler(core_schema), "pattern": self.pattern, "maxLength": 32}
        schema.pop("type")
        return {**schema, **INT_OR_STRING}


LARGEST_COUNT = 10**18

Count = Annotated[int, Field(ge=1, le=LARGEST_COUNT), BeforeValidator(parse_count), IntOrString(COUNT_PATTERN)]
"""A whole number ≥ 1: `1000`, `2.5B` (10⁹), `512Ki` (2¹⁰)."""

Duration = Annotated[str, Field(pattern=DURATION_PATTERN, max_length=32)]
"""A length of time: `90s`, `10m`, `1h30m`, `7d`."""

ByteSize = Annotated[
    str, Field(pattern=BYTES_PATTERN, max_length=32), BeforeValidator(_whole_as_text), IntOrString(BYTES_PATTERN)
]
"""A number of bytes: `512Mi`, `8Gi`."""

CpuQuantity = Annotated[
    str, Field(pattern=CPU_PATTERN, max_length=32), BeforeValidator(_whole_as_text), IntOrString(CPU_PATTERN)
]
"""A number of cores: `4`, `"0.5"`, `500m`."""
