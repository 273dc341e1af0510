"""Write images/NAME/requirements.lock: all that an image installs, so that a change of anything else rebuilds nothing.

Versions are those of requirements.lock; what needs what is read from the packages of this environment.
"""

from __future__ import annotations

import tomllib
from importlib.metadata import requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = Path(__file__).resolve().parent.parent
NAMES = ("operator", "trainer", "dataprep", "serve")
BUILD_TOOLS = {"pip", "setuptools", "wheel"}
"""pip leaves them out of locks; where one is needed at run time, any version will do."""

Wanted = tuple[str, str]
"""A distribution, and one of its extras or none."""


def locked(name: str) -> str:
    """The distributions of an image, one on a line.

    Raises:
        KeyError: one is not in requirements.lock.
    """
    versions = _versions()
    names = sorted({distribution for distribution, _ in _closure(name)})
    return "".join(each + "\n" if each in BUILD_TOOLS else f"{each}=={versions[each]}\n" for each in names)


def path(name: str) -> Path:
    """Where the list of an image lies."""
    return PROJECT / "images" / name / "requirements.lock"


def _closure(name: str) -> set[Wanted]:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    extras: dict[str, list[str]] = project["optional-dependencies"]
    waiting, found = [*project["dependencies"], *extras[name]], set[Wanted]()
    while waiting:
        requirement = Requirement(waiting.pop())
        distribution = canonicalize_name(requirement.name)
        if distribution == "kindling":
            waiting += [line for extra in requirement.extras for line in extras[extra]]
            continue
        for wanted in {(distribution, extra) for extra in {"", *requirement.extras}} - found:
            found.add(wanted)
            waiting += _needs(*wanted)
    return found


def _needs(distribution: str, extra: str) -> list[str]:
    lines = requires(distribution) or []
    markers = [(line, Requirement(line).marker) for line in lines]
    return [line for line, marker in markers if marker is None or marker.evaluate({"extra": extra})]


def _versions() -> dict[str, str]:
    lines = (PROJECT / "requirements.lock").read_text().split()
    return {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}


if __name__ == "__main__":
    for image in NAMES:
        path(image).write_text(locked(image))
