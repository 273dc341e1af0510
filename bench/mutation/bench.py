"""Mutation testing: a sample of small changes to our code, each of which some fast test has to notice.

    PYTHONPATH=FOLDER python bench/mutation/bench.py --results FILE.jsonl [--sample 320] [--seed 1] [--seconds 220]

FOLDER holds cosmic-ray, whose operators make the changes: `pip install --no-deps --target FOLDER cosmic-ray parso`. At
a sample of the places that they change, one change each is drawn. Left out are annotations, decorators (most changes of
`frozen=True` change nothing), and modules that only whole processes or an API server prove.

A process imports the fast tests, and for each change forks. The fork puts the changed code into the functions,
constants and class attributes that are loaded, and runs, until one fails, the test of the module's name and the tests
that import the module, or those of the mirrored folder where there are none. The same seed draws the same sample. FILE
has a line for each change; what has one is not run again, so that it can be made in slices of --seconds. `--again` lets
what survived meet all tests of the mirrored folder (of the operator also the golden files); `--show` prints it.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import json
import os
import random
import re
import resource
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import pytest
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.operators.provider import OperatorProvider

ROOT = Path(__file__).resolve().parents[2]
PARTS = {
    "operator/kindling_operator": 0.36,
    "storage/kindling_storage": 0.22,
    "dataprep/kindling_dataprep/steps": 0.32,
    "trainer/kindling_trainer/loop": 0.10,
}
"""What is changed, and its part of the sample."""
ELSEWHERE = ("__main__.py", "cluster.py", "handlers.py", "health.py", "leader.py", "lease.py", "metrics.py")
"""Modules of the operator that only tests with an API server or a whole operator prove."""
BLIND = ("test_render_main.py",)
"""Tests of processes, which do not have the change."""
MARKS = "not slow and not cluster and not exhaustive"
CPU_SECONDS = 60
"""After so many a change is taken to be an endless loop, which is noticed."""


@dataclass(frozen=True)
class Change:
    """One change of one module."""

    path: str
    operator: str
    occurrence: int
    line: int

    @cached_property
    def sources(self) -> tuple[str, str]:
        """The module's text before and after."""
        before = (ROOT / self.path).read_text()
        after = mutate_code(before, OperatorProvider()[self.operator](), self.occurrence)
        assert after is not None, self
        return before, after


def main() -> None:
    """Draw the sample, run what has no result yet, and count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--sample", type=int, default=320)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=1e9, help="no change is begun after so many")
    parser.add_argument("--again", action="store_true", help="run those that survived once more, with more tests")
    parser.add_argument("--show", action="store_true", help="print those that survived, and run nothing")
    options = parser.parse_args()
    changes, known = kept_sample(options), results(options.results)
    until = time.monotonic() + options.seconds
    left = [] if options.show else [each for each in changes if (each in known) == options.again]
    for number, part in enumerate(PARTS):
        part_until = time.monotonic() + (until - time.monotonic()) / (len(PARTS) - number)
        pending = [
            each for each in left if each.path.startswith(part) and known.get(each, {}).get("outcome") != "killed"
        ]
        if pending and time.monotonic() < until and (child := os.fork()) == 0:
            os._exit(run(pending, options, part_until))
        elif pending and time.monotonic() < until:
            _, status = os.waitpid(child, 0)
            if status:
                raise SystemExit(f"the tests of {part} cannot be collected")
    known = results(options.results)
    for change in changes:
        if options.show and known.get(change, {}).get("outcome") == "survived":
            print(f"{change.path}:{change.line} {change.operator}", *known[change]["difference"], sep="\n", end="\n\n")
    for part in PARTS:
        outcomes = [known[each]["outcome"] for each in changes if each in known and each.path.startswith(part)]
        print(f"{part:36} {len(outcomes):4} changes, {dict(sorted(Counter(outcomes).items()))}")
    print(f"{sum(each in known for each in changes)} of {len(changes)} were run")


def kept_sample(options: argparse.Namespace) -> list[Change]:
    """The sample, which takes half a minute to draw, from the file beside the results."""
    path = options.results.with_suffix(".sample.json")
    if not path.exists():
        drawn = sample(options.sample, options.seed)
        path.write_text(json.dumps([asdict(change) for change in drawn]))
    return [Change(**each) for each in json.loads(path.read_text())]


def results(path: Path) -> dict[Change, dict[str, Any]]:
    """What is known of each change; the last word counts."""
    rows = map(json.loads, path.read_text().splitlines()) if path.exists() else ()
    return {Change(**row["change"]): row for row in rows}


def sample(size: int, seed: int) -> list[Change]:
    """One change each at some of the places, in an order that makes any beginning of it a sample, too."""
    chance, drawn = random.Random(seed), []
    for part, fraction in PARTS.items():
        by_place: dict[tuple[str, object], list[Change]] = {}
        for path in sorted((ROOT / part).rglob("*.py")):
            if path.name not in ELSEWHERE or not part.startswith("operator"):
                for place, change in changes_of(str(path.relative_to(ROOT))):
                    by_place.setdefault((change.path, place), []).append(change)
        drawn += [chance.choice(by_place[place]) for place in chance.sample(sorted(by_place), round(size * fraction))]
    chance.shuffle(drawn)
    return drawn


def changes_of(name: str) -> Iterator[tuple[tuple[Any, Any], Change]]:
    """All changes of a module, each with its place."""
    nodes, provider = list(ast_nodes(get_ast((ROOT / name).read_text()))), OperatorProvider()
    for operator in provider:
        if not (kind := provider[operator]).arguments():
            places = [(node, place) for node in nodes for place in kind().mutation_positions(node)]
            for occurrence, (node, (start, end)) in enumerate(places):
                if not is_declaration(node):
                    yield (start, end), Change(name, operator, occurrence, start[0])


def is_declaration(node: Any) -> bool:
    """Whether it is part of an annotation or a decorator."""
    while (parent := node.parent) is not None:
        texts = [getattr(child, "value", "") for child in parent.children]
        if node.type == "decorator" or parent.type == "decorator":
            return True
        if parent.type in ("annassign", "tfpdef") and node is parent.children[texts.index(":") + 1]:
            return True
        if parent.type == "funcdef" and "->" in texts and node is parent.children[texts.index("->") + 1]:
            return True
        node = parent
    return False


def run(changes: list[Change], options: argparse.Namespace, until: float) -> int:
    """Collect the tests of some changes of one part once, and fork for each change."""
    sys.stdout = os.fdopen(os.dup(1), "w", buffering=1)
    silence = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(silence, stream)
    tests = {change: tests_of(change.path, options.again) for change in changes}
    files = list(dict.fromkeys(test for change in changes for test in tests[change]))
    settings = ["-q", "-p", "no:cacheprovider", "-p", "no:faulthandler", "-m", MARKS]
    return int(pytest.main([*settings, *files], plugins=[Forks(tests, options.results, until, sys.stdout)]))


@dataclass
class Forks:
    """The plugin that runs the tests of each change, in place of running all tests."""

    tests: dict[Change, list[str]]
    results: Path
    until: float
    out: Any

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Until the time is over."""
        for change in self.tests:
            if time.monotonic() < self.until:
                row = {"change": asdict(change), **self.outcome(change, session)}
                print(f"{row['outcome']:9} {row['cpuSeconds']:5} {change.path}:{change.line} {change.operator}",
                      file=self.out)  # fmt: skip
                with self.results.open("a") as file:
                    file.write(json.dumps(row) + "\n")
        return True

    def outcome(self, change: Change, session: pytest.Session) -> dict[str, object]:
        """Whether a test notices the change, and the change itself as a difference."""
        before, after = (source.splitlines() for source in change.sources)
        difference = list(difflib.unified_diff(before, after, lineterm="", n=1))[3:]
        try:
            compile(change.sources[1], change.path, "exec")
        except SyntaxError:  # such as an operator for the stars of an argument
            return {"outcome": "no code", "cpuSeconds": 0.0, "difference": difference}
        importlib.import_module(module_of(change.path))  # tests may import it late, or not at all
        child = os.fork()
        if child == 0:
            noticed = 1  # also where pytest itself does not survive the change
            try:
                noticed = self.notice(change, session)
            finally:
                os._exit(noticed)
        _, status, usage = os.wait4(child, 0)
        with suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
        return {
            "outcome": "survived" if status == 0 else "killed",
            "cpuSeconds": round(usage.ru_utime + usage.ru_stime, 1),
            "difference": difference,
        }

    def notice(self, change: Change, session: pytest.Session) -> int:
        """In the fork: 0 where all tests pass."""
        os.setsid()
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
        try:
            apply(change)
        except Exception:  # it cannot even be imported
            return 1
        order = {test: place for place, test in enumerate(self.tests[change])}
        items = sorted((item for item in session.items if str(item.path) in order), key=lambda i: order[str(i.path)])
        for item, after in zip(items, [*items[1:], None], strict=True):
            session.config.hook.pytest_runtest_protocol(item=item, nextitem=after)
            if session.testsfailed:
                return 1
        return 0


def apply(change: Change) -> None:
    """Put the changed code into what is loaded."""
    name = module_of(change.path)
    loaded, fresh = sys.modules[name], ModuleType(name)
    fresh.__dict__.update(
        __file__=loaded.__file__, __package__=loaded.__package__, __path__=getattr(loaded, "__path__", [])
    )
    exec(compile(change.sources[1], str(ROOT / change.path), "exec"), fresh.__dict__)
    for key, new in vars(fresh).items():
        old = vars(loaded).get(key)
        if isinstance(new, type) and isinstance(old, type) and new.__module__ == name:
            for attribute, value in vars(new).items():
                put(vars(old).get(attribute), value, lambda value, old=old, a=attribute: setattr(old, a, value))
        elif key[:2] != "__":
            put(old, new, lambda value, key=key, old=old: replace(key, old, value))


def put(old: Any, new: Any, assign: Callable[[Any], None]) -> None:
    """Give a function its new code, and any other value that differs its name's new one."""
    changed = False
    for before, after in zip(functions(old), functions(new), strict=False):
        changed = True
        if len(before.__code__.co_freevars) == len(after.__code__.co_freevars):
            before.__code__ = after.__code__
        before.__defaults__, before.__kwdefaults__ = after.__defaults__, after.__kwdefaults__
    if not changed and isinstance(new, (int, float, str, bytes, tuple, list, dict, set, frozenset, re.Pattern)):
        with suppress(Exception):
            if old != new:
                assign(new)


def functions(value: Any) -> Iterator[FunctionType]:
    """Those within a function, property, method or wrapper."""
    inner = [getattr(value, name, None) for name in ("fget", "fset", "func", "__func__", "__wrapped__")]
    if isinstance(value, FunctionType):
        yield value
    for each in inner:
        if each is not None and (isinstance(each, FunctionType) or hasattr(each, "__wrapped__")):
            yield from functions(each)


def replace(key: str, old: Any, new: Any) -> None:
    """Wherever it was imported by its name."""
    for module in list(sys.modules.values()):
        if (getattr(module, "__name__", "").startswith("kindling_") or "test" in getattr(module, "__name__", "")) and (
            vars(module).get(key) is old
        ):
            setattr(module, key, new)


def module_of(path: str) -> str:
    """The module's name: the first folder is that of the package's project."""
    return ".".join(Path(path).with_suffix("").parts[1:]).removesuffix(".__init__")


def tests_of(path: str, every: bool) -> list[str]:
    """The test of the module's name and the tests that import the module; then `every` other of the mirrored folder."""
    project, _, *rooms = Path(path).with_suffix("").parts
    folder = ROOT / "tests" / "unit" / project
    module = module_of(path)
    parent, _, last = module.rpartition(".")
    importing = re.compile(rf"(from|import) {re.escape(module)}\b|from {re.escape(parent)} import .*\b{last}\b")
    golden = [ROOT / "tests" / "golden" / "test_golden.py"] if project == "operator" else []
    own = sorted(folder.rglob(f"test_{last.removeprefix('_')}.py"))
    users = [test for test in sorted(folder.rglob("test_*.py")) if importing.search(test.read_text())]
    mirrored = next(each for each in (folder.joinpath(*rooms[:-1]), folder) if any(each.rglob("test_*.py")))
    others = [*sorted(mirrored.rglob("test_*.py")), *golden] if every or not (own or users) else []
    found = dict.fromkeys([*own, *users, *others])
    return [str(test) for test in found if test.name not in BLIND]


if __name__ == "__main__":
    main()
