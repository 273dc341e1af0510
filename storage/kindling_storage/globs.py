"""From what a user wrote, a file, a folder or a glob, to the files that are there."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from urllib.parse import quote, unquote

from kindling_api.errors import SpecError, explain
from kindling_api.hub import is_hub, parse_hub_uri
from kindling_storage.store import ObjectStore

OpenStore = Callable[[str], ObjectStore]
"""From a store's URI to the store; credentials and endpoint are the caller's affair."""


@dataclass(frozen=True)
class Found:
    """Files of one store."""

    uri: str
    """The store."""
    paths: list[str]
    sizes: Mapping[str, int]
    """Of each, in bytes."""
    is_folder: bool = False
    """Whether a whole folder was named, and not files."""


def remedy_for_nothing(uri: str) -> str:
    """What to do where `uri` names nothing."""
    if any(part.startswith(("~", "$")) for part in uri.split("/")):
        return "write the path out: ~ and $NAME are the shell's, and stay as they are in a document"
    return "correct the path"


def find(uri: str, *, where: str, allowed: str, open_store: OpenStore) -> Found:
    """The files that `uri` names: one file, those that fit a glob (`*`, `?`, `[…]`, and `**` for any number of
    folders), or all those in a folder, to its bottom. Names that begin with a dot are left out of folders and globs.

    Args:
        uri: `s3://…`, `file://…`, `hf://datasets/…`, or a path relative to the working folder.
        where: the field that holds it, for the message.
        allowed: the forms that `where` may have, for the message.

    Raises:
        SpecError: another scheme.
    """
    base, parts = _absolute(uri, where, allowed)
    above = list(takewhile(bool, parts[:-1]))
    folder, name = open_store(_join(base, above)), "/".join(parts[len(above) :])
    if name and folder.exists(name):
        return Found(_join(base, above), [name], {name: folder.info(name).size})
    fixed = list(takewhile(lambda part: part and not _is_pattern(part), parts))
    pattern = parts[len(fixed) :]
    sizes = {each.path: each.size for each in open_store(_join(base, fixed)).list() if not is_hidden(each.path)}
    paths = [path for path in sizes if not pattern or _matches(path.split("/"), pattern)]
    return Found(_join(base, fixed), paths, sizes, is_folder=not pattern)


def is_hidden(path: str) -> bool:
    """Whether the file, or a folder on the way to it, has a name that begins with a dot."""
    return any(part.startswith(".") for part in path.split("/"))


def _absolute(uri: str, where: str, allowed: str) -> tuple[str, list[str]]:
    """`s3://bucket/a/b` → (`s3://bucket`, [a, b]); a path or `file://` → (`file://`, its parts from the root);
    `hf://datasets/o/n/a` → (`hf://datasets/o/n@main`, [a])."""
    scheme, separator, rest = uri.partition("://")
    if not separator or scheme == "file":
        path = unquote(rest) if separator else uri
        return "file://", _parts(os.path.abspath(path))
    if scheme == "s3":
        bucket, _, key = rest.partition("/")
        return f"s3://{bucket}", key.removesuffix("/").split("/") if key.strip("/") else []
    if is_hub(uri):
        place = parse_hub_uri(uri, where)
        return place.repository, _parts(place.path)
    raise SpecError(explain(where, found=repr(uri), allowed=allowed, remedy="fetch the files and name them by a path"))


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part]


def _join(base: str, parts: Sequence[str]) -> str:
    if base == "file://":
        return base + quote("/" + "/".join(parts))
    return "/".join((base, *parts))


def _is_pattern(part: str) -> bool:
    return any(character in part for character in "*?[")


def _matches(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether a path fits a glob, both cut at their slashes; `**` stands for any number of parts, none included."""
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return _matches(parts, pattern[1:]) or (bool(parts) and _matches(parts[1:], pattern))
    return bool(parts) and fnmatch.fnmatchcase(parts[0], pattern[0]) and _matches(parts[1:], pattern[1:])
