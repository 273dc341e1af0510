"""`--set NAME:FIELD.PATH=VALUE`: one field of one document changed from the command line, before it is checked.

>>> parse("DatasetBuild/shakespeare:spec.sources[0].uri=input.txt")
Override(document='DatasetBuild/shakespeare', path=('spec', 'sources', 0, 'uri'), value='input.txt')
"""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass
from typing import Any

from kindling_api.errors import SpecError, explain
from kindling_api.yaml_source import read_yaml

FORM = "NAME:FIELD.PATH=VALUE, as in DatasetBuild/web:spec.sources[0].uri=./texts"

_OVERRIDE = re.compile(r"(?P<document>[^:=\s]+):(?P<path>spec(\.\w+|\[\d+\])+)=(?P<value>.*)", re.DOTALL)
_STEP = re.compile(r"(\w+)|\[(\d+)\]")


@dataclass(frozen=True)
class Override:
    """One field of one document and its new value."""

    document: str
    """A document's name, or `Kind/name`."""
    path: tuple[str | int, ...]
    """Keys of maps and positions in lists, from the document's root."""
    value: Any
    """The new value, typed as YAML types it."""

    def __str__(self) -> str:
        return f"--set {self.document}:{''.join(_spelt(step) for step in self.path).removeprefix('.')}"


def parse(text: str) -> Override:
    """Read one override.

    Raises:
        SpecError: the text is not of the form `NAME:FIELD.PATH=VALUE`, or the value is not YAML.
    """
    match = _OVERRIDE.fullmatch(text)
    if match is None:
        remedy = "write the document's name, a colon, the field's path from spec on, and =VALUE"
        raise SpecError(explain("--set", found=repr(text), allowed=FORM, remedy=remedy))
    path = tuple(int(index) if index else name for name, index in _STEP.findall(match["path"]))
    documents = read_yaml(match["value"], "--set")
    return Override(match["document"], path, documents[0].value if documents else None)


def put(tree: dict[str, Any], override: Override) -> dict[str, Any]:
    """A copy of `tree` with the override's value in its place; maps on the way are made where they are absent.

    Raises:
        SpecError: the path leads through something that is neither a map nor a list, or beyond a list's end.
    """
    result = copy.deepcopy(tree)
    place: Any = result
    for step, following in zip(override.path, override.path[1:], strict=False):
        _check(place, step, override)
        if isinstance(step, str) and place.get(step) is None:
            place[step] = [] if isinstance(following, int) else {}
        place = place[step]
    last = override.path[-1]
    _check(place, last, override)
    place[last] = override.value
    return result


def _check(place: Any, step: str | int, override: Override) -> None:
    if isinstance(step, int) and not (isinstance(place, list) and step < len(place)):
        found = f"a list of {len(place)}" if isinstance(place, list) else "no list"
        remedy = "count positions from 0, or set the whole list: =[…]"
        raise SpecError(explain(str(override), found=found, allowed=f"a list with a position {step}", remedy=remedy))
    if isinstance(step, str) and not isinstance(place, dict):
        found = "a list" if isinstance(place, list) else repr(place)
        remedy = "name a position, as in sources[0].uri" if isinstance(place, list) else "set the whole map: ={…}"
        raise SpecError(explain(str(override), found=f"{found} before .{step}", allowed="a map there", remedy=remedy))


def _spelt(step: str | int) -> str:
    return f"[{step}]" if isinstance(step, int) else f".{step}"
