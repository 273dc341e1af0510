"""The subcommands that ask a dataset, with their options and help; the bodies are imported where they are used."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kindling_cli import DEFAULT_STORE
from kindling_cli.options import Store


def whatif(
    dataset: Annotated[
        str, typer.Argument(metavar="DATASET", help="A name in the store, or the folder or URI of a dataset.")
    ],
    settings: Annotated[
        list[str],
        typer.Option("--set", metavar="RULE.THRESHOLD=VALUE", help="Try this threshold. Repeatable."),
    ],
    store: Store = DEFAULT_STORE,
    limit: Annotated[int, typer.Option(metavar="N", min=0, help="Most examples to list.")] = 20,
    json: Annotated[bool, typer.Option("--json", help="Print the answer as JSON, with all documents.")] = False,
) -> None:
    """Say which documents other thresholds would remove or keep, from stored measures; nothing is read or built again.

    \b
    Examples:
      kindling whatif quickstart --set gopherRepetition.maxDuplicateLineFraction=0.25
      kindling whatif web --set language.minScore=0.8 --set toxicity.threshold=0.3 --limit 5
    """
    from kindling_cli.commands.whatif import try_settings

    try_settings(dataset, store=store, settings=settings, limit=limit, as_json=json)


def similar(
    dataset: Annotated[
        str, typer.Argument(metavar="DATASET", help="A name in the store, or the folder or URI of a dataset.")
    ],
    text: Annotated[str | None, typer.Option(metavar="TEXT", help="What to look for.")] = None,
    file: Annotated[Path | None, typer.Option(metavar="FILE", help="A text in UTF-8 to look for.")] = None,
    store: Store = DEFAULT_STORE,
    limit: Annotated[int, typer.Option(metavar="N", min=1, help="Most documents to list.")] = 10,
    json: Annotated[bool, typer.Option("--json", help="Print the documents as JSON.")] = False,
) -> None:
    """List the documents of a dataset that are most like a text, with their estimated Jaccard similarity.

    The dataset keeps what this needs if its document says deduplicate.minHash.index: true.

    \b
    Examples:
      kindling similar web --text "It was a bright cold day in April, and the clocks were striking thirteen."
      kindling similar web --file page.txt --limit 3 --json
    """
    from kindling_cli.commands.similar import show_similar

    show_similar(dataset, store=store, text=text, file=file, limit=limit, as_json=json)
