"""`kindling whatif`: what other thresholds would have done to a dataset's documents."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from kindling_api.errors import SpecError, explain
from kindling_api.v1alpha1.products import DatasetManifest
from kindling_api.yaml_source import read_yaml
from kindling_cli.product_folders import find
from kindling_cli.products import read_product
from kindling_dataprep.whatif import STAYS, Change, Setting, WhatIfResult, ask, excerpts, tokens_of

_SETTING = re.compile(r"(?P<rule>\w+)\.(?P<name>\w+)=(?P<value>.*)", re.DOTALL)


def try_settings(what: str, *, store: str, settings: Sequence[str], limit: int, as_json: bool) -> None:
    """Print how many documents would go and stay, and some of those.

    Raises:
        SpecError: there is no such dataset, or a setting is none of its thresholds.
    """
    parsed = [parse(setting) for setting in settings]
    place = find(what, store, ("DatasetBuild",))
    manifest = read_product(place.store)
    if not isinstance(manifest, DatasetManifest):
        raise SpecError(
            explain(repr(what), found=f"a {manifest.kind}", allowed="a dataset", remedy="name a finished DatasetBuild")
        )
    answer = ask(place.store, manifest, parsed)
    shown = spread(answer.changes, limit)
    beginnings = excerpts(place.store, [change.id for change in shown])
    kept, tokens = tokens_of(place.store, answer.going)
    if as_json:
        print(json.dumps(_document(answer, kept, tokens), indent=2))
    else:
        _show(Console(highlight=False), answer, shown, beginnings, kept, f"{tokens:,} of {_all_tokens(manifest):,}")


def parse(text: str) -> Setting:
    """Read `RULE.THRESHOLD=VALUE`; the value is YAML.

    Raises:
        SpecError: it is not of this form.
    """
    match = _SETTING.fullmatch(text)
    if match is None:
        allowed = "RULE.THRESHOLD=VALUE, as in gopherRepetition.maxDuplicateLineFraction=0.25"
        raise SpecError(explain("--set", found=repr(text), allowed=allowed, remedy="write it in this form"))
    documents = read_yaml(match["value"], "--set")
    return Setting(match["rule"], match["name"], documents[0].value if documents else None)


def spread(changes: Sequence[Change], count: int) -> list[Change]:
    """At most `count` of them, from all over the sources."""
    shown = min(len(changes), count)
    return [changes[(2 * number + 1) * len(changes) // (2 * shown)] for number in range(shown)]


def _all_tokens(manifest: DatasetManifest) -> int:
    return manifest.train_tokens + manifest.validation_tokens


def _document(answer: WhatIfResult, kept: int, tokens: int) -> dict[str, Any]:
    return {
        "now": dict(sorted(answer.now.items())),
        "then": dict(sorted(answer.then.items())),
        "going": {"documents": len(answer.going), "inDataset": kept, "tokens": tokens},
        "coming": {"documents": len(answer.changes) - len(answer.going)},
        "changes": [
            {"id": each.id, "now": each.now, "then": each.then, "measure": each.measure, "value": each.value}
            for each in answer.changes
        ],
    }


def _show(
    console: Console, answer: WhatIfResult, shown: Sequence[Change], beginnings: dict[str, str], kept: int, tokens: str
) -> None:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for column in ("documents", "now", "then", ""):
        table.add_column(column, justify="left" if column == "documents" else "right")
    rules = sorted({*answer.now, *answer.then} - {STAYS})
    for rule in (*rules, STAYS):
        now, then = answer.now[rule], answer.then[rule]
        name = rule if rule == STAYS else f"− {rule}"
        table.add_row(name, f"{now:,}", f"{then:,}", Text(f"{then - now:+,}" if then != now else "", "yellow"))
    console.print(table)
    going = len(answer.going)
    console.print(f"\n{going:,} would go, {kept:,} of them in the dataset, with {tokens} tokens.")
    console.print(f"{len(answer.changes) - going:,} would stay, unless they are duplicates.")
    if shown:
        console.print(_examples(shown, beginnings))


def _examples(shown: Sequence[Change], beginnings: dict[str, str]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", expand=True)
    for column in ("", "document", "measure", "value", "threshold", "beginning"):
        is_number = column in ("value", "threshold")
        table.add_column(
            column,
            justify="right" if is_number else "left",
            ratio=1 if column == "beginning" else None,
            overflow="ellipsis",
            no_wrap=True,
        )
    for each in shown:
        goes = each.now == STAYS
        rule = each.then if goes else each.now
        threshold = "" if each.threshold is None else f"{each.threshold:.4g}"
        table.add_row(
            Text("goes", "yellow") if goes else Text("stays", "cyan"),
            Text(each.id if len(each.id) <= 40 else f"…{each.id[-39:]}"),
            f"{rule}.{each.measure}",
            f"{each.value:.4g}",
            threshold,
            Text(beginnings.get(each.id, ""), "dim"),
        )
    return table
