"""Print what an extra of pyproject.toml asks for, so that an image has it before it has any of our code.

python requirements.py trainer < pyproject.toml
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator
from typing import Any


def requirements(project: dict[str, Any], extra: str) -> Iterator[str]:
    """The distributions, as pip wants to read them; an extra that another one includes is followed."""
    for line in project["optional-dependencies"][extra]:
        if line.startswith("kindling["):
            for included in line.removeprefix("kindling[").removesuffix("]").split(","):
                yield from requirements(project, included)
        else:
            yield line


if __name__ == "__main__":
    project = tomllib.loads(sys.stdin.read())["project"]
    print("\n".join(sorted({*project["dependencies"], *requirements(project, sys.argv[1])})))
