"""`python -m kindling_api.reference` writes docs/reference.md: all fields of the three kinds, from the CRDs' schemas.

`--check` fails where the file differs.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from kindling_api.base import API_VERSION
from kindling_api.crds import SHORT_NAMES, crd
from kindling_api.documents import KINDS
from kindling_api.quantities import BYTES_PATTERN, COUNT_PATTERN, CPU_PATTERN, DURATION_PATTERN
from kindling_api.schema import Schema, structural_schema
from kindling_api.v1alpha1.resources import MUTABLE_FIELDS

FILE = Path(__file__).parents[2] / "docs" / "reference.md"

FORMS = {
    COUNT_PATTERN: "count",
    DURATION_PATTERN: "duration",
    BYTES_PATTERN: "bytes",
    CPU_PATTERN: "cores",
}
"""What texts that mean an amount are called."""

HEAD = f"""\
# Reference

Generated from the specification by `python -m kindling_api.reference`; do not edit. `kubectl explain pretrainrun.spec`
says the same.

All three kinds belong to `{API_VERSION}`, are namespaced, and are in the category `kindling`: `kubectl get kindling`
lists them all.

- **count**: a whole number, as in `1000`, `2.5B` (10⁹) or `512Ki` (2¹⁰). **duration**: as in `90s`, `10m`, `1h30m` or
  `7d`. **bytes**: as in `512Mi` or `8Gi`. **cores**: as in `4` or `500m`.
- Fields can be changed after creation only where that is said; anything else needs a document with a new name.
"""


def text() -> str:
    """The whole page."""
    return HEAD + "".join(_kind(kind) for kind in KINDS)


def _kind(kind: str) -> str:
    definition = crd(kind)
    schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    plural = definition["spec"]["names"]["plural"]
    names = f"`kubectl get {plural}`, or `{SHORT_NAMES[kind]}` for short."
    parts = [f"\n## {kind}\n\n{schema['description']} {names}\n"]
    for part in ("spec", "status"):
        fields = structural_schema(KINDS[kind])["properties"][part]
        parts += [f"\n### {kind} {part}\n", *_tables(part, fields, with_defaults=part == "spec")]
    return "".join(parts)


def _tables(name: str, schema: Schema, *, with_defaults: bool) -> Iterator[str]:
    """A table of the fields that are single values, and one for each of the others."""
    fields, required = schema["properties"], schema.get("required", ())
    yield _table([_row(field, part, field in required) for field, part in fields.items()], with_defaults=with_defaults)
    for field, part in fields.items():
        rows = [_row(path, inner, needed) for path, inner, needed in _below(field, part)]
        if rows:
            yield f"\n#### `{name}.{field}`\n\n{_description(part)}\n"
            yield _table(rows, with_defaults=with_defaults)


def _below(path: str, schema: Schema) -> Iterator[tuple[str, Schema, bool]]:
    """Every field below a field: its path, its schema, and whether what holds it must have it."""
    if "items" in schema:
        path, schema = f"{path}[]", schema["items"]
    for name, part in schema.get("properties", {}).items():
        yield f"{path}.{name}", part, name in schema.get("required", ())
        yield from _below(f"{path}.{name}", part)


def _table(rows: list[tuple[str, str, str, str]], *, with_defaults: bool) -> str:
    titles = ("Field", "Type", "Default", "")
    shown = [0, 1, 2, 3] if with_defaults else [0, 1, 3]
    lines = [[row[column].replace("|", "\\|") for column in shown] for row in (titles, *rows)]
    lines.insert(1, ["---"] * len(shown))
    return "\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _row(path: str, schema: Schema, required: bool) -> tuple[str, str, str, str]:
    default = "required" if required else f"`{_short(schema['default'])}`" if "default" in schema else ""
    change = " Can be changed." if path in MUTABLE_FIELDS else ""
    return f"`{path}`", _type(schema), default, _description(schema) + change


def _description(schema: Schema) -> str:
    """The field's own words, and the rules between the fields below it."""
    rules = "; ".join(rule["message"] for rule in schema.get("x-kubernetes-validations", ()))
    return f"{schema.get('description', '')} ({rules}.)" if rules else str(schema.get("description", ""))


def _type(schema: Schema) -> str:
    if "items" in schema:
        return f"list of {_type(schema['items'])}"
    if "additionalProperties" in schema:
        return f"map to {_type(schema['additionalProperties'])}"
    if "enum" in schema:
        return ", ".join(f"`{choice}`" for choice in schema["enum"])
    if "x-kubernetes-int-or-string" in schema:
        form, pattern = FORMS.get(schema["pattern"]), str(schema["pattern"])
        if form is None:
            return f"integer{_bounds(schema)}, or {pattern.strip('^$()').replace('|', ', ')}"
        return f"integer or {form}" if pattern == DURATION_PATTERN else form + _bounds(schema)
    return FORMS.get(schema.get("pattern", ""), str(schema["type"])) + _bounds(schema)


def _bounds(schema: Schema) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    below = "<" if schema.get("exclusiveMaximum") else "≤"
    above = ">" if schema.get("exclusiveMinimum") else "≥"
    bounds = [f"{above} {_short(low)}"] if low is not None else []
    if high is not None and high < 10**15:
        bounds.append(f"{below} {_short(high)}")
    return f" {', '.join(bounds)}" if bounds else ""


def _short(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page, or only compare it; the exit code is 1 where `--check` finds a difference."""
    parser = argparse.ArgumentParser(prog="python -m kindling_api.reference", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail where the file differs")
    check = parser.parse_args(arguments).check
    if FILE.exists() and FILE.read_text(encoding="utf-8") == text():
        return 0
    if not check:
        FILE.write_text(text(), encoding="utf-8")
    print(f"{FILE.name}: {'differs' if check else 'written'}")
    return 1 if check else 0


if __name__ == "__main__":
    sys.exit(main())
