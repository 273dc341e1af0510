"""Names and values under one another, as `plan` and `inspect` show a product."""

from __future__ import annotations

from collections.abc import Iterable

from rich.table import Table
from rich.text import Text


def key_value_table(pairs: Iterable[tuple[str, str]]) -> Table:
    """One line a pair; a value too long for the screen goes on below itself."""
    table = Table.grid(padding=(0, 2, 0, 0))
    for name, value in pairs:
        table.add_row(Text(f"  {name}", "dim"), Text(value, overflow="fold"))
    return table
