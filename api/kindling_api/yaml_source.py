"""YAML as kubectl reads it, with the line of every field.

kubectl turns YAML into JSON with sigs.k8s.io/yaml, whose scalars are neither quite YAML 1.1 (PyYAML: `6e-4` is text, a
date is a date) nor YAML 1.2 (`yes` is text). One file must mean the same on a laptop and in a cluster, so the rules of
that library (go.yaml.in/yaml/v2, resolve.go) are followed: yes/no/on/off/y/n are booleans, `6e-4` and `1e3` are
numbers, a date is text, and a whole number is an integer however it is written.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from kindling_api.errors import SpecError, explain

FieldPath = tuple[str | int, ...]

MOST_VALUES = 100_000
"""Values in one document, aliases followed: a few anchors that hold one another can otherwise mean billions."""

LARGEST_WHOLE_FLOAT = 1e21
"""From here on, Go's JSON writes a float with an exponent, and it stays one."""

LONGEST_INTEGER = 20
"""Digits; a longer number does not fit 64 bits and is a float."""

_TAG = "tag:yaml.org,2002:"
_BOOLEANS = {
    **dict.fromkeys(("y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"), True),
    **dict.fromkeys(("n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"), False),
}


class _Loader(yaml.SafeLoader):
    """PyYAML's parser with kubectl's scalars."""

    yaml_implicit_resolvers = {}


_INTEGER = r"[-+]?(0[xX]_*[0-9a-fA-F][0-9a-fA-F_]*|0[bB]_*[01][01_]*|0[oO]_*[0-7][0-7_]*|0[0-7_]*|[1-9][0-9_]*)"
_FLOAT = r"[-+]?(\.[0-9]+|[0-9][0-9_]*(\.[0-9_]*)?)([eE][-+]?[0-9]+)?"

for _kind, _pattern, _first in (
    ("null", r"(~|null|Null|NULL|)", ["~", "n", "N", ""]),
    ("bool", "(" + "|".join(_BOOLEANS) + ")", list("yYnNtTfFoO")),
    ("int", _INTEGER, list("-+0123456789")),
    ("float", _FLOAT, list("-+.0123456789")),
    ("float", r"([-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))", list("-+.")),
    ("merge", "<<", ["<"]),
):
    _Loader.add_implicit_resolver(_TAG + _kind, re.compile(rf"^(?:{_pattern})\Z"), _first)


@dataclass(frozen=True)
class YamlDocument:
    """One document of a file: its value as JSON would hold it, and where each part of it was written."""

    value: Any
    lines: Mapping[FieldPath, int] = field(default_factory=dict)
    """Line (from 1) of the field at each path; empty where it was not read from a text."""

    def line_of(self, path: FieldPath) -> int:
        """The line of the field at `path`, or of the nearest thing around it that exists; 0 where there are none."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 0)

    def place(self, source: str, line: int) -> str:
        """`source:line`, or as much of it as is known."""
        return f"{source}:{line}" if source and line else source


def read_yaml(text: str, source: str) -> list[YamlDocument]:
    """All documents of a text that are not empty.

    Raises:
        SpecError: it is not YAML, a key occurs twice, or a value has no place in JSON; the message names the line.
    """
    try:
        return list(_documents(_Loader(text), source))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        if error.problem == "found unexpected end of stream":  # what is not closed began above
            mark = error.context_mark or mark
        problem = (error.problem or "a fault").replace("\t", "\\t").removeprefix("found ")
        raise _wrong(source, mark.line + 1 if mark else 1, problem, "YAML", _syntax_remedy(problem)) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        remedy = "remove it, or give the right file"
        raise _wrong(
            source, line, f"the control character {error.character!r}", "YAML, which is text", remedy
        ) from None
    except RecursionError:
        raise _wrong(source, 1, "values nested too deeply", "a hundred levels or so", "flatten the document") from None


def _documents(loader: _Loader, source: str) -> Iterator[YamlDocument]:
    while loader.check_node():
        node = loader.get_node()
        builder = _Builder(source)
        if node is not None and (value := builder.build(node, ())) is not None:
            yield YamlDocument(value, builder.lines)


class _Builder:
    """Turns the nodes of one document into plain values and notes the line of each."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.lines: dict[FieldPath, int] = {}
        self._open: list[yaml.Node] = []

    def build(self, node: yaml.Node, path: FieldPath) -> Any:
        self.lines.setdefault(path, _line(node))
        if len(self.lines) > MOST_VALUES:
            raise self._wrong(node, f"more than {MOST_VALUES} values", "a smaller document", "split it")
        if any(node is outer for outer in self._open):
            raise self._wrong(node, "an alias inside the value that it names", "values that end", "remove the alias")
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        self._open.append(node)
        value = self._mapping(node, path) if isinstance(node, yaml.MappingNode) else self._list(node, path)
        self._open.pop()
        return value

    def _list(self, node: yaml.Node, path: FieldPath) -> list[Any]:
        return [self.build(item, (*path, index)) for index, item in enumerate(node.value)]

    def _mapping(self, node: yaml.MappingNode, path: FieldPath) -> dict[str, Any]:
        value: dict[str, Any] = {}
        merged: list[yaml.Node] = []
        for key_node, value_node in node.value:
            if key_node.tag == _TAG + "merge":
                merged += value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node]
                continue
            key = self._key(key_node)
            if key in value:
                found = f"{key!r} a second time (first on line {self.lines[(*path, key)]})"
                raise self._wrong(key_node, found, "each key once", "remove one of the two")
            self.lines[(*path, key)] = _line(key_node)
            value[key] = self.build(value_node, (*path, key))
        for source in merged:
            self._merge(source, path, value)
        return value

    def _merge(self, node: yaml.Node, path: FieldPath, value: dict[str, Any]) -> None:
        if not isinstance(node, yaml.MappingNode):
            raise self._wrong(node, "<< with something else than a mapping", "a mapping", "merge an anchored mapping")
        other = _Builder(self.source)
        other._open = self._open
        for key, item in other.build(node, path).items():
            if key not in value:
                value[key] = item
                inner = (*path, key)
                self.lines |= {place: line for place, line in other.lines.items() if place[: len(inner)] == inner}

    def _key(self, node: yaml.Node) -> str:
        key = self._scalar(node) if isinstance(node, yaml.ScalarNode) else None
        if isinstance(key, bool):
            return "true" if key else "false"
        if isinstance(key, str | int):
            return str(key)
        raise self._wrong(node, "a key that is no text", "text", "write the key as plain text")

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        kind, text = node.tag.removeprefix(_TAG), node.value
        if kind == "str":
            return text
        if kind == "null":
            return None
        if kind == "bool" and text in _BOOLEANS:
            return _BOOLEANS[text]
        if kind in ("int", "float"):
            return self._number(node)
        raise self._wrong(node, f"the tag {node.tag}", "plain YAML values", "remove the tag, or quote the text")

    def _number(self, node: yaml.ScalarNode) -> int | float | str:
        if not re.fullmatch(f"{_INTEGER}|{_FLOAT}", node.value):
            raise self._wrong(node, node.value, "a finite number", "write a finite number, or quote the text")
        text = node.value.replace("_", "")
        sign, digits = (-1 if text.startswith("-") else 1), text.lstrip("+-")
        if re.fullmatch(r"0[xXbBoO][0-9a-fA-F]+", digits):
            return sign * int(digits, 0)
        if re.fullmatch(r"0[0-7]+", digits):
            return sign * int(digits, 8)
        if digits.isdecimal() and len(digits) < LONGEST_INTEGER:
            return sign * int(digits)
        number = float(digits)
        if math.isinf(number):  # too large for a float: Go leaves it as the text that it is
            return str(node.value)
        return sign * (int(number) if number.is_integer() and number < LARGEST_WHOLE_FLOAT else number)

    def _wrong(self, node: yaml.Node, found: str, allowed: str, remedy: str) -> SpecError:
        return _wrong(self.source, _line(node), found, allowed, remedy)


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _wrong(source: str, line: int, found: str, allowed: str, remedy: str) -> SpecError:
    return SpecError(explain(f"{source}:{line}", found=found, allowed=allowed, remedy=remedy))


def _syntax_remedy(problem: str) -> str:
    if "\\t" in problem:
        return "indent with spaces: YAML does not allow tabs"
    if problem.startswith("undefined alias"):
        return "put the text in quotes: without them * names an anchor of the same document"
    if problem == "unexpected end of stream":
        return "close the quote that is opened on this line"
    return "correct this line or the one above: look for a missing colon, space, quote, bracket or indentation"
