"""Listings: a table that fits a screen without cutting a number, and has whole lines in a file."""

from __future__ import annotations

import io
from typing import Literal

from rich.console import Console
from rich.table import Table

NARROWEST_TEXT = 16
NARROW, WIDEST_NAME = 100, 26
"""On screens below so many columns, a name goes on below itself from here on."""
WIDEST_LINE = 10_000
NUMBERS = ("words", "tokens", "value", "threshold", "size", "age", "key")
RIGHT = ("words", "tokens", "value", "threshold", "size", "age")


def listing(console: Console, *columns: str, cut_last: bool = True) -> Table:
    """A table in which numbers are never cut and names go on below themselves; on a screen the last column, a text,
    takes what room the others leave, and in a file it is whole.

    Args:
        cut_last: whether the last column is the beginning of a text, of which what has no room may go.
    """
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", expand=console.is_terminal)
    narrow = console.is_terminal and console.width < NARROW
    for column in columns:
        is_number = column in NUMBERS
        if column == columns[-1]:
            overflow: Literal["ellipsis", "fold"] = "ellipsis" if cut_last else "fold"
            table.add_column(column, ratio=1, min_width=NARROWEST_TEXT, overflow=overflow, no_wrap=cut_last)
        else:
            justify: Literal["left", "right"] = "right" if column in RIGHT else "left"
            widest = WIDEST_NAME if narrow and not is_number else None
            table.add_column(column, justify=justify, overflow="fold", no_wrap=is_number, max_width=widest)
    return table


def print_listing(console: Console, table: Table) -> None:
    """Whole lines where nobody's screen is too narrow for them."""
    if console.is_terminal:
        console.print(table)
        return
    wide = Console(file=io.StringIO(), highlight=False, width=WIDEST_LINE)
    wide.print(table)
    assert isinstance(wide.file, io.StringIO)
    print("\n".join(line.rstrip() for line in wide.file.getvalue().splitlines()))
