"""The commands that the pages give can be typed as they stand there."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import typer

from kindling_api.v1alpha1.status import ConditionType
from kindling_cli.main import app

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    page
    for pattern in (
        "*.md",
        "docs/*.md",
        "examples/*/README.md",
        "charts/kindling/README.md",
        "charts/*/templates/NOTES.txt",
    )
    for page in ROOT.glob(pattern)
    if page.name != "CHANGELOG.md"
)
COMMAND = re.compile(r"(?:^|[`|($]\s*|&&\s+)((?:kubectl|helm|kindling) +[a-z-][^`|]*)", re.MULTILINE)
KUBECTL = {"annotate", "api-resources", "apply", "auth", "create", "delete", "describe", "events", "exec", "explain"}
KUBECTL |= {"get", "kustomize", "label", "logs", "patch", "port-forward", "rollout", "scale", "top", "version", "wait"}
HELM = {
    "dependency",
    "diff",
    "get",
    "history",
    "install",
    "lint",
    "list",
    "package",
    "pull",
    "push",
    "repo",
    "rollback",
}
HELM |= {"show", "status", "template", "uninstall", "upgrade"}
CATEGORY = "kindling"
"""As in `kubectl get kindling`: of three kinds."""
CONDITIONS = {*get_args(ConditionType), "Ready", "Available", "Complete"}


def commands(page: Path) -> Iterator[list[str]]:
    """The words of each command of a page, comments and what a shell does with them left out."""
    text = re.sub(r"\\\n\s*", " ", page.read_text(encoding="utf-8"))
    text = re.sub(r"\{\{.*?\}\}", "X", text)
    for line in text.splitlines():
        for found in COMMAND.findall(line.strip()):
            try:
                words = shlex.split(found, comments=True)
            except ValueError:  # a quotation that ends behind the bar or bracket at which the command was cut
                words = found.split()
            yield [word.rstrip(").,:;") for word in words if word not in ("&", "…")]


def verb(words: list[str]) -> tuple[str, list[str]]:
    """The first word that is neither an option nor the value of one, and what comes after it."""
    rest = iter(words[1:])
    for word in rest:
        if word in ("-n", "--namespace", "--context", "--kube-context"):
            next(rest)
        elif not word.startswith("-"):
            return word, list(rest)
    return "", []


def fault(words: list[str]) -> str | None:
    """Why a command could not work; None where nothing speaks against it."""
    if words[0] == "kindling":
        return _fault_of_ours(typer.main.get_command(app), words[1:])
    called, rest = verb(words)
    if called not in (KUBECTL if words[0] == "kubectl" else HELM):
        return f"{words[0]} has no {called}"
    if words[0] == "helm":
        return None
    options = {word.partition("=")[0] for word in rest if word.startswith("-")}
    several = bool(rest) and (rest[0] == CATEGORY or "," in rest[0])
    if called == "get" and several and options & {"-w", "--watch", "--watch-only"}:
        return "kubectl watches one kind, and not several"
    waited = [word.removeprefix("--for=condition=") for word in words if word.startswith("--for=condition=")]
    unknown = [word for word in waited if word.partition("=")[0] not in CONDITIONS]
    return f"no condition {unknown[0]}" if unknown else None


def _fault_of_ours(command: Any, words: list[str]) -> str | None:
    while hasattr(command, "commands") and words and not words[0].startswith("-"):
        if words[0] not in command.commands:
            return f"kindling has no {words[0]}"
        command, words = command.commands[words[0]], words[1:]
    known = {name for each in command.params for name in (*each.opts, *each.secondary_opts)} | {"--help"}
    unknown = [word for word in words if word.startswith("--") and word.partition("=")[0] not in known]
    return f"kindling {command.name} has no {unknown[0]}" if unknown else None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_command_can_be_typed_as_it_stands_on_the_page(page: Path) -> None:
    assert {shlex.join(words): why for words in commands(page) if (why := fault(words)) is not None} == {}


def test_the_pages_have_commands() -> None:
    found = [words[0] for page in PAGES for words in commands(page)]
    assert all(found.count(program) >= 10 for program in ("kubectl", "helm", "kindling"))


@pytest.mark.parametrize(
    "command",
    [
        "kubectl get kindling --watch",
        "kubectl --namespace team get kindling -w",
        "kubectl get dsb,ptr --watch",
        "kubectl gett pods",
        "kubectl wait ptr/x --for=condition=Done",
        "helm instal kindling charts/kindling",
        "kindling trian x",
        "kindling chat x --temprature 1",
    ],
)
def test_a_command_that_cannot_work_is_seen(command: str) -> None:
    assert fault(shlex.split(command)) is not None
