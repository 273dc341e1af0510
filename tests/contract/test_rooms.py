"""The rooms of the tree, counted: a newcomer finds a thing by the field's word, in the one place where it can be."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
MOST_AT_THE_TOP = 5
"""Files of the trainer that lie in none of its rooms."""

SHARED_NAMES: dict[str, str] = {}
"""Class names that two classes may share, and why; it is to get shorter."""

RETIRED: dict[str, str] = {
    "bury": "skip",
    "enact": "apply",
    "enactor": "applier",
    "farewell": "what is printed",
    "gang": "worker group",
    "gathering": "rendezvous",
    "hold": "lock or lease",
    "judgement": "scores",
    "learnt": "training",
    "obey": "apply a command",
    "obituary": "failure message",
    "patience": "retry, timeout or grace",
    "speech": "detokenizer",
    "told": "reported",
    "tried": "validation or evaluated",
    "trying": "evaluating",
    "unsay": "clear a condition",
    "voice": "generator",
}
"""Words that are no part of an identifier any more, and what the field says."""


@cache
def trees() -> dict[str, ast.Module]:
    """The modules of the product by their dotted names."""
    found = {}
    for path in sorted(ROOT.glob("*/kindling_*/**/*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts[1:]
        found[".".join(parts).removesuffix(".__init__")] = ast.parse(path.read_text())
    return found


def imports(module: str) -> set[str]:
    """The modules that a module imports, wherever in it it does."""
    found = set()
    for node in ast.walk(trees()[module]):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return {name for name in found if name in trees() and name != module}


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """The strongly connected parts of more than one module (Tarjan 1972)."""
    numbers: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found = []

    def visit(module: str) -> None:
        numbers[module] = lowest[module] = len(numbers)
        stack.append(module)
        for other in graph[module]:
            if other not in numbers:
                visit(other)
            if other in stack:
                lowest[module] = min(lowest[module], lowest[other])
        if lowest[module] == numbers[module]:
            part = stack[stack.index(module) :]
            del stack[stack.index(module) :]
            if len(part) > 1:
                found.append(sorted(part))

    for module in graph:
        if module not in numbers:
            visit(module)
    return found


def identifiers(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Each name that a module defines or uses, with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.lineno, node.name
        elif isinstance(node, ast.Name):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute):
            yield node.lineno, node.attr
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg


def words(identifier: str) -> set[str]:
    """`WorkerGroup` and `worker_group` are worker and group."""
    return {word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", identifier)}


def test_few_files_lie_at_the_top_of_the_trainer() -> None:
    files = {path.name for path in (ROOT / "trainer" / "kindling_trainer").glob("*.py")}
    assert len(files) <= MOST_AT_THE_TOP, sorted(files)


def test_each_policy_of_the_operator_has_tests_of_its_own_name() -> None:
    policies = {path.stem for path in (ROOT / "operator/kindling_operator/policies").glob("[a-z]*.py")}
    tests = {path.stem.removeprefix("test_") for path in (ROOT / "tests/unit/operator/policies").glob("test_*.py")}
    assert policies and tests == policies


def test_no_files_import_each_other_in_a_circle() -> None:
    assert circles({module: imports(module) for module in trees()}) == []


def test_no_two_public_classes_share_a_name() -> None:
    places: dict[str, list[str]] = {}
    for module, tree in trees().items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(module)
    shared = {name: where for name, where in places.items() if len(where) > 1}
    assert {name: where for name, where in shared.items() if name not in SHARED_NAMES} == {}
    assert set(SHARED_NAMES) <= set(shared), "no longer shared: leave it out of the table"


def test_no_identifier_holds_a_retired_word() -> None:
    found = [
        f"{module}:{line}: {name}"
        for module, tree in trees().items()
        for line, name in identifiers(tree)
        if words(name) & set(RETIRED)
    ]
    assert found == []
