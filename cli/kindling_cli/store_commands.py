"""The commands that keep a store: `kindling list` and `kindling prune`, with their options and help."""

from __future__ import annotations

from typing import Annotated

import typer

from kindling_cli import DEFAULT_STORE
from kindling_cli.options import Store


def list_(
    store: Store = DEFAULT_STORE,
    json: Annotated[bool, typer.Option("--json", help="Print the list as JSON.")] = False,
) -> None:
    """List what a store holds: size, age, the document that made it, and what was made from it.

    \b
    Examples:
      kindling list
      kindling list --store s3://llm/first --json
    """
    from kindling_cli.commands.list import list_products

    list_products(store=store, as_json=json)


def prune(
    store: Store = DEFAULT_STORE,
    unused: Annotated[
        bool, typer.Option("--unused", help="Finished products, too, that no name leads to and nothing was made from.")
    ] = False,
    older_than: Annotated[
        str, typer.Option("--older-than", metavar="TIME", help="Leave what was written to since, as in 12h or 7d.")
    ] = "7d",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Delete nothing, and say what would be.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print what goes and what stays, and why, as JSON.")] = False,
) -> None:
    """Delete from a store what was never finished and, with --unused, what newer products have replaced.

    What a name leads to stays, with all that it was made from; so does what a process works at.

    \b
    Examples:
      kindling prune --unused --dry-run
      kindling prune --unused --older-than 12h
    """
    from kindling_cli.commands.list import prune as prune_store

    prune_store(store=store, unused=unused, older_than=older_than, dry_run=dry_run, as_json=json)
