"""Questions about Python's standard library with their answers, from its own docstrings: dialogues that every machine
with Python has."""

from __future__ import annotations

import ast
import json
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

from kindling_storage.atomic import write_atomically

PYTHON_DOCSTRINGS = "builtin:python-docstrings"

LONGEST_ANSWER = 200
"""Characters; a docstring whose first paragraph is longer is left out rather than cut."""


def python_docstrings() -> Path:
    """A JSONL file of prompts and completions, in an order of the library's names; the same Python gives the same
    bytes."""
    records = (json.dumps({"prompt": asked, "completion": answer}) + "\n" for asked, answer in _questions())
    path = Path(tempfile.gettempdir()) / "kindling-cache" / "python-docstrings.jsonl"
    write_atomically(path, "".join(records).encode())
    return path


def _questions() -> Iterator[tuple[str, str]]:
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("[!_]*.py")):
        module = ast.parse(path.read_bytes())
        yield from _question(f"What is the module {path.stem} for?", module)
        for node in module.body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                yield from _question(f"What does {path.stem}.{node.name} do?", node)
            elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                yield from _question(f"What is {path.stem}.{node.name}?", node)


def _question(asked: str, node: ast.Module | ast.FunctionDef | ast.ClassDef) -> Iterator[tuple[str, str]]:
    first, _, _ = (ast.get_docstring(node) or "").partition("\n\n")
    answer = " ".join(first.split())
    if answer and len(answer) <= LONGEST_ANSWER and answer.isascii():
        yield asked, answer
