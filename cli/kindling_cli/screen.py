"""How a flow looks while it runs: a live picture on a terminal, plain lines into a file or a pipe."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from kindling_api.v1alpha1.status import DatasetResult, ModelResult
from kindling_cli.figures import duration, short_digest
from kindling_cli.rows import Row

PLAIN_SECONDS = 5.0
"""Time between two plain lines of one stage."""
WIDEST = 100
"""Columns of the live picture; wider terminals leave the rest empty."""

_MARKS = {
    "waiting": ("·", "dim"),
    "running": ("›", "bold cyan"),
    "stopping": ("›", "bold yellow"),
    "done": ("✓", "green"),
    "reused": ("✓", "green"),
    "stopped": ("‖", "yellow"),
    "failed": ("✗", "bold red"),
}


class Screen(Protocol):
    """Draws the rows of a flow; `show` is called a few times a second."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def show(self, rows: Sequence[Row]) -> None:
        """Draw the rows as they are now."""


def screen_for(console: Console) -> Screen:
    """The live picture where the console is a terminal, else plain lines."""
    return LiveScreen(console) if console.is_terminal else PlainScreen(console)


class LiveScreen:
    """One picture, redrawn in place. It draws from the caller's thread alone, so that children can be forked safely."""

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, auto_refresh=False, transient=False)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def show(self, rows: Sequence[Row]) -> None:
        """Draw the rows as they are now."""
        self._live.update(picture(rows, min(WIDEST, self._live.console.width)), refresh=True)


class PlainScreen:
    """A line for each change of stage, and one every few seconds between."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._said: dict[str, tuple[str, float]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def show(self, rows: Sequence[Row]) -> None:
        """Say what changed since the last line of each row."""
        for row in rows:
            now, what = time.monotonic(), f"{row.state} {row.stage if row.state == 'running' else ''}"
            before, at = self._said.get(row.title, ("waiting ", now))
            if what != before or (row.state == "running" and now - at >= PLAIN_SECONDS):
                self._said[row.title] = (what, now)
                self._console.print(plain_line(row), markup=False, highlight=False, soft_wrap=True)


def plain_line(row: Row) -> str:
    """One line that says where a row is: `PretrainRun/quickstart: training 46 % · step 322 of 700 · … · 1:12 left`."""
    if row.state == "running":
        percent = f" {row.percent:.0f} %" if row.percent else ""
        return f"{row.title}: " + " · ".join(part for part in (row.stage + percent, row.details, row.eta) if part)
    said = {
        "done": f"finished in {duration(row.seconds)}",
        "reused": "already finished",
        "stopping": "stopping: saving what there is",
    }.get(row.state, row.state)
    return f"{row.title}: " + " · ".join(part for part in (said, row.details, _digest(row)) if part)


def picture(rows: Sequence[Row], width: int) -> RenderableType:
    """All rows, two lines each: title, bar and time left; below them the key figures."""
    title_width = max(len(row.title) for row in rows)
    lines: list[RenderableType] = [Text()]
    for row in rows:
        head = Table.grid(padding=(0, 2, 0, 0))
        head.width = width
        head.add_column(width=1)
        head.add_column(width=title_width, no_wrap=True, overflow="ellipsis")
        head.add_column(width=18, no_wrap=True)
        head.add_column(ratio=1, no_wrap=True)
        head.add_column(width=12, justify="right", no_wrap=True)
        mark, style = _MARKS[row.state]
        head.add_row(Text(mark, style), Text(row.title, "bold" if row.state == "running" else ""), *_state_cells(row))
        lines += [head, Text("   " + row.details, "dim", no_wrap=True, overflow="ellipsis"), Text()]
    return Group(*lines)


def _state_cells(row: Row) -> tuple[RenderableType, RenderableType, RenderableType]:
    if row.state in ("running", "stopping"):
        bar = ProgressBar(total=100, completed=row.percent, complete_style="cyan", finished_style="cyan")
        said = f"{row.stage} {row.percent:.0f} %" if row.state == "running" else "saving …"
        return Text(said), bar, Text(row.eta, "dim")
    said = f"done in {duration(row.seconds)}" if row.state == "done" else _STATE_WORDS[row.state]
    return Text(said, _MARKS[row.state][1]), Text(_digest(row), "dim"), Text()


_STATE_WORDS = {"waiting": "waiting", "reused": "already finished", "stopped": "stopped", "failed": "failed"}


def _digest(row: Row) -> str:
    result = row.progress.result
    return f"digest {short_digest(result.digest)}" if isinstance(result, DatasetResult | ModelResult) else ""
