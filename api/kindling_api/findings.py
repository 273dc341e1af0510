"""Pydantic's complaints, told as sentences: field, what was found, what is allowed, what to do.

All of them at once, each with its line, so that a document is corrected in one go. What is allowed is read from the
field's schema, the same one that the API server enforces, and so cannot differ from it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import groupby
from typing import Any

from pydantic import ValidationError
from pydantic.alias_generators import to_camel
from pydantic_core import ErrorDetails

from kindling_api.base import DOCUMENT_NAME_PATTERN, NAME_PATTERN
from kindling_api.errors import Explanation, UserError, explain, near
from kindling_api.hub import DATA_PATTERN, FILE_PATTERN, MODEL_PATTERN, PLAIN_PATTERN, TARGET_PATTERN
from kindling_api.other_trainers import remedy_for
from kindling_api.quantities import BYTES_PATTERN, COUNT_PATTERN, CPU_PATTERN, DURATION_PATTERN, LARGEST_COUNT
from kindling_api.schema import Schema, at
from kindling_api.v1alpha1.alignment_method import IMPORT_PATH_PATTERN
from kindling_api.v1alpha1.filters import LANGUAGE_PATTERN
from kindling_api.v1alpha1.pod_affinity import LABEL_VALUE_PATTERN, QUALIFIED_PATTERN
from kindling_api.v1alpha1.pod_template import DATA_KEY_PATTERN, VARIABLE_PATTERN
from kindling_api.v1alpha1.pod_volumes import OBJECT_PATTERN, PATH_PATTERN, SUB_PATH_PATTERN
from kindling_api.v1alpha1.storage import ENDPOINT_PATTERN, STORE_PATTERN
from kindling_api.yaml_source import FieldPath, YamlDocument

LONGEST_QUOTE = 80
MOST_FIELDS_LISTED = 12

_HEADER = {"metadata": "add it, as in metadata: {name: first}", "metadata.name": "add it, as in name: first"}
"""What to do where the name of a document is missing; Kubernetes' own types have no words of ours."""

_PATTERNS = {
    COUNT_PATTERN: "one with K, M, B, T, Ki, Mi or Gi, as in 2.5B",
    DURATION_PATTERN: "a duration, as in 90s, 10m or 1h30m",
    BYTES_PATTERN: "a number of bytes, as in 512Mi or 8Gi",
    CPU_PATTERN: "a number of cores, as in 500m",
    DOCUMENT_NAME_PATTERN: "lower-case letters, digits and hyphens, a letter first, a letter or digit last",
    NAME_PATTERN: "lower-case letters, digits and hyphens, a letter or digit at both ends",
    STORE_PATTERN: "s3://bucket/prefix or file:///folder",
    PLAIN_PATTERN: "a path, s3://… or file://…, and nothing of the Hugging Face Hub",
    MODEL_PATTERN: "a path, s3://…, file://… or hf://owner/name[@revision]",
    FILE_PATTERN: "a path, s3://…, file://… or hf://owner/name[@revision][/path]",
    DATA_PATTERN: "a path, s3://…, file://… or hf://datasets/owner/name[@revision][/path]",
    TARGET_PATTERN: "hf://owner/name, or hf://owner/name@branch",
    ENDPOINT_PATTERN: "an http:// or https:// address",
    LANGUAGE_PATTERN: "the code of a language, as in en or de",
    OBJECT_PATTERN: "lower-case letters, digits, hyphens and dots, a letter or digit at both ends",
    QUALIFIED_PATTERN: "a label's key, as in topology.kubernetes.io/zone",
    LABEL_VALUE_PATTERN: "letters, digits, hyphens, underscores and dots, a letter or digit at both ends",
    VARIABLE_PATTERN: "letters, digits and underscores, no digit first",
    DATA_KEY_PATTERN: "letters, digits, hyphens, underscores and dots, no dot first",
    PATH_PATTERN: "an absolute path without .. and without a slash at its end, as in /mnt/cache",
    SUB_PATH_PATTERN: "a relative path without .., as in models/cache",
    IMPORT_PATH_PATTERN: "module:function, as in rewards.maths:score",
}


def findings(error: ValidationError, document: YamlDocument, schema: Schema, source: str) -> list[str]:
    """One sentence for each thing that is wrong, in the order of the lines."""
    found: dict[str, int] = {}
    for path, details in _by_place(error, document):
        line, sentence = _sentence(path, details, document, schema)
        found.setdefault(Explanation.of(document.place(source, line), sentence), line)
    return sorted(found, key=lambda sentence: found[sentence])


def dotted(path: FieldPath) -> str:
    """`("spec", "sources", 0, "uri")` → `spec.sources[0].uri`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


def _by_place(error: ValidationError, document: YamlDocument) -> Iterator[tuple[FieldPath, list[ErrorDetails]]]:
    """The complaints by the place in the document; a union complains once for each of its variants."""
    placed = [(_place(details, document.value), details) for details in error.errors(include_url=False)]
    for path, group in groupby(placed, key=lambda pair: pair[0]):
        inside = [other for other, _ in placed if other[: len(path)] == path and other != path]
        details = [details for _, details in group if not (inside and details["type"] == "too_short")]
        if details:  # a list counts as too short when items of it are wrong: the items' own complaints say it all
            yield path, details


def _place(details: ErrorDetails, value: Any) -> FieldPath:
    """The complaint's place without the names of union variants, which are no part of the document."""
    path: FieldPath = ()
    for part in details["loc"]:
        inside = part in value if isinstance(value, dict) else isinstance(value, list) and part in range(len(value))
        if inside:
            path, value = (*path, part), value[part]
    if details["type"] == "missing":
        path = (*path, details["loc"][-1])
    return path


def _sentence(path: FieldPath, details: list[ErrorDetails], document: YamlDocument, schema: Schema) -> tuple[int, str]:
    first, here = details[0], at(schema, path)
    if first["type"] == "extra_forbidden":
        return document.line_of(path), _unknown_field(path, schema)
    if first["type"] == "missing":
        return document.line_of(path), _missing_field(path, here or {})
    if first["type"] == "value_error" and "properties" in (here or {}):
        return _between_fields(path, first["ctx"]["error"], document)
    found = quoted(first["input"])
    return document.line_of(path), explain(
        dotted(path) or "document",
        found=found,
        allowed=allowed_by(here or {}),
        remedy=_remedy(first["input"], here or {}),
    )


def _unknown_field(path: FieldPath, schema: Schema) -> str:
    parent = at(schema, path[:-1]) or {}
    name, fields = str(path[-1]), sorted(parent.get("properties", {}))
    meant = near(name, fields)
    remedy = f"did you mean `{meant}`? If not, remove it" if meant else "remove it"
    if (camel := to_camel(name)) in fields:
        habit = "have no underscores" if "_" in name else "begin with a small letter"
        remedy = f"write `{camel}`; the names of fields {habit}"
    elif (known := remedy_for(name, meant, lambda place: at(schema, place) is not None)) is not None:
        remedy = known
    return explain(
        dotted(path), found="an unknown field", allowed=_listed(fields) if fields else "no fields at all", remedy=remedy
    )


def _missing_field(path: FieldPath, here: Schema) -> str:
    description = here.get("description", "").partition(". ")[0].rstrip(".")
    remedy = f"add it: {description[:1].lower()}{description[1:]}" if description else "add it"
    return explain(dotted(path), found="nothing", allowed=allowed_by(here), remedy=_HEADER.get(dotted(path), remedy))


def _between_fields(path: FieldPath, error: ValueError, document: YamlDocument) -> tuple[int, str]:
    """A rule of ours between several fields; its error may name the place itself, and more exactly."""
    if not isinstance(error, UserError) or not error.where:
        return document.line_of(path), f"{dotted(path)}: {error}"
    return document.line_of(path_of(error.where)), str(error)


def path_of(where: str) -> FieldPath:
    """The reverse of `dotted`."""
    return tuple(int(number) if number else name for number, name in re.findall(r"\[(\d+)\]|(\w+)", where))


def quoted(value: object) -> str:
    """A value as the user wrote it, or nearly, and not too long."""
    if isinstance(value, dict):
        return "an object with " + (_listed(list(map(str, value))) or "nothing in it")
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    text = "nothing" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= LONGEST_QUOTE else text[:LONGEST_QUOTE] + "…"


def allowed_by(schema: Schema) -> str:
    """What a field may be, in words."""
    if "enum" in schema:
        choices = [str(choice) for choice in schema["enum"]]
        return f"one of {', '.join(choices)}" if len(choices) > 1 else choices[0]
    if schema.get("x-kubernetes-int-or-string"):
        words = re.fullmatch(r"\^\(([a-z|]+)\)\$", schema["pattern"])
        text = words.group(1).replace("|", " or ") if words else _PATTERNS.get(schema["pattern"], "text")
        return f"a whole number {_range(schema)}, or {text}"
    match schema.get("type"):
        case "integer":
            return f"a whole number {_range(schema)}".rstrip()
        case "number":
            return f"a number {_range(schema)}".rstrip()
        case "boolean":
            return "true or false"
        case "array":
            return f"a list of {_sizes(schema.get('minItems', 0), schema.get('maxItems'))} items"
        case "object":
            fields = sorted(schema.get("properties", {}))
            return f"an object with {_listed(fields)}" if fields else "an object, as in {}"
        case _:
            return _text(schema)


def _text(schema: Schema) -> str:
    pattern = schema.get("pattern")
    text = _PATTERNS.get(pattern, f"text that matches {pattern}") if pattern else "text"
    if "maxLength" in schema and (not pattern or schema["maxLength"] < 64):
        return f"{text}, {_sizes(schema.get('minLength', 0), schema['maxLength'])} characters"
    return text


def _range(schema: Schema) -> str:
    least, most = schema.get("minimum"), schema.get("maximum")
    open_ended = schema.get("exclusiveMinimum") or schema.get("exclusiveMaximum")
    if least is not None and most is not None and most < LARGEST_COUNT and not open_ended:
        return f"from {least:g} to {most}"
    parts = []
    if least is not None:
        parts.append(f"above {least:g}" if schema.get("exclusiveMinimum") else f"of at least {least:g}")
    if most is not None and most < LARGEST_COUNT:
        parts.append(f"below {most:g}" if schema.get("exclusiveMaximum") else f"of at most {most:g}")
    return " and ".join(parts)


def _sizes(least: int, most: int | None) -> str:
    if most is None:
        return f"at least {least}"
    if least == most:
        return str(most)
    return f"{least} to {most}" if least else f"at most {most}"


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:MOST_FIELDS_LISTED])
    return shown + ", …" if len(names) > MOST_FIELDS_LISTED else shown


def _remedy(value: object, schema: Schema) -> str:
    if "enum" in schema:
        meant = near(value, map(str, schema["enum"])) if isinstance(value, str) else None
        return f"did you mean `{meant}`?" if meant else "use one of them" if len(schema["enum"]) > 1 else "use it"
    wanted, pattern = schema.get("type", "int-or-string"), schema.get("pattern")
    if isinstance(value, str) and wanted in ("integer", "number", "boolean") and re.fullmatch(_PLAIN, value):
        return "remove the quotes"
    if isinstance(value, bool) and wanted == "string":
        words = "yes, on and true" if value else "no, off and false"
        return f"put the word in quotes; without them YAML reads {words} as {quoted(value)}"
    if isinstance(value, int | float) and pattern == DOCUMENT_NAME_PATTERN:
        return f"call it `{_name_like(str(value))}`"
    if isinstance(value, bool | int | float) and wanted == "string":
        return f'put it in quotes: "{quoted(value)}"'
    if isinstance(value, float) and wanted == "int-or-string" and pattern == CPU_PATTERN:
        return f'put it in quotes: "{quoted(value)}"'
    if isinstance(value, float) and wanted != "number":
        return "write a whole number"
    if isinstance(value, int | float) and not isinstance(value, bool):
        return "use a number in this range"
    if wanted == "array":
        return "add an item" if value == [] else "write a list, with `- ` before each item"
    return (_rewritten(value, schema) if isinstance(value, str) else None) or "change it to what is allowed"


def _rewritten(text: str, schema: Schema) -> str | None:
    """How to write what the text probably means; None where that cannot be guessed."""
    pattern, fields = schema.get("pattern"), schema.get("properties", {})
    if schema.get("type") == "object":
        holder = "uri" if "/" in text or "name" not in fields else "name"
        inner = f"{near(text, fields)}: {{}}" if near(text, fields) else f"{holder}: {text}" if holder in fields else ""
        return (
            f"write {{{inner}}}"
            if inner
            else f"write an object, as in {{{next(iter(fields))}: {{}}}}"
            if fields
            else None
        )
    guesses = {
        DOCUMENT_NAME_PATTERN: _name_like(text),
        NAME_PATTERN: _label_like(text),
        BYTES_PATTERN: text.replace(" ", "").removesuffix("B"),
        COUNT_PATTERN: text.replace(" ", "").replace("k", "K").replace("m", "M").replace("b", "B").replace(",", ""),
    }
    guess = guesses.get(pattern or "", "")
    fits = guess != text and len(guess) <= schema.get("maxLength", len(guess)) and re.fullmatch(pattern or "", guess)
    return f"did you mean `{guess}`?" if guess and fits else None


def _label_like(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _name_like(text: str) -> str:
    label = _label_like(text)
    return f"run-{label}" if label[:1].isdigit() else label


_PLAIN = r"true|false|-?[0-9.]+([eE][-+]?[0-9]+)?"
