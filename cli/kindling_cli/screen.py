"""How a flow looks while it runs: a live picture on a terminal, plain lines into a file or a pipe."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from kindling_api.v1alpha1.status import DatasetResult, ModelResult
from kindling_cli.figures import duration, short_digest
from kindling_cli.rows import StageRow

PLAIN_PERCENT = 10.0
"""What of the whole is done between two plain lines of one stage."""
PLAIN_SECONDS = 60.0
"""The longest time between two of them while anything changes."""
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

    def show(self, rows: Sequence[StageRow]) -> None:
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

    def show(self, rows: Sequence[StageRow]) -> None:
        """Draw the rows as they are now."""
        self._live.update(picture(rows, min(WIDEST, self._live.console.width)), refresh=True)


@dataclass(frozen=True)
class _Said:
    """The last plain line of a row."""

    what: str = "waiting "
    line: str = ""
    percent: float = 0.0
    at: float = 0.0


class PlainScreen:
    """A line, with the time of day, for each change of stage, each tenth of the work, and each minute that changed
    anything."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._said: dict[str, _Said] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def show(self, rows: Sequence[StageRow]) -> None:
        """Say what changed since the last line of each row."""
        for row in rows:
            before = self._said.get(row.title, _Said())
            now = _Said(
                f"{row.state} {row.stage if row.state == 'running' else ''}",
                plain_line(row),
                row.percent,
                time.monotonic(),
            )
            if now.what != before.what or (row.state == "running" and _is_news(before, now)):
                self._said[row.title] = now
                for line in (now.line, *(f"{row.title}: warning: {remark}" for remark in row.remarks)):
                    stamped = f"{time.strftime('%H:%M:%S')} {line}"
                    self._console.print(stamped, markup=False, highlight=False, soft_wrap=True)


def _is_news(before: _Said, now: _Said) -> bool:
    advanced = now.percent - before.percent >= PLAIN_PERCENT
    return now.line != before.line and (advanced or now.at - before.at >= PLAIN_SECONDS)


def plain_line(row: StageRow) -> str:
    """One line that says where a row is: `PretrainRun/quickstart: training 46 % · step 322 of 700 · … · 1:12 left`."""
    if row.state == "running":
        percent = f" {row.percent:.0f} %" if row.percent and row.is_counted else ""
        return f"{row.title}: " + " · ".join(part for part in (row.stage + percent, row.details, row.eta) if part)
    said = {
        "done": f"finished in {duration(row.seconds)}",
        "reused": "already finished",
        "stopping": "stopping: saving what there is",
    }.get(row.state, row.state)
    return f"{row.title}: " + " · ".join(part for part in (said, row.details, _digest(row)) if part)


def picture(rows: Sequence[StageRow], width: int) -> RenderableType:
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
        lines += [head, Text("   " + row.details, "dim", no_wrap=True, overflow="ellipsis")]
        lines += [Padding(Text(f"! {remark}", "yellow"), (0, 0, 0, 3)) for remark in row.remarks]
        lines.append(Text())
    return Group(*lines)


def _state_cells(row: StageRow) -> tuple[RenderableType, RenderableType, RenderableType]:
    if row.state in ("running", "stopping"):
        bar = ProgressBar(total=100, completed=row.percent, complete_style="cyan", finished_style="cyan")
        if row.state == "stopping":
            return Text("saving …"), bar, Text()
        said = f"{row.stage} {row.percent:.0f} %" if row.is_counted else f"{row.stage} …"
        return Text(said), bar, Text(row.eta or f"{duration(row.stage_seconds)} so far", "dim")
    said = f"done in {duration(row.seconds)}" if row.state == "done" else _STATE_WORDS[row.state]
    return Text(said, _MARKS[row.state][1]), Text(_digest(row), "dim"), Text()


_STATE_WORDS = {"waiting": "waiting", "reused": "already finished", "stopped": "stopped", "failed": "failed"}


def _digest(row: StageRow) -> str:
    result = row.progress.result
    return f"digest {short_digest(result.digest)}" if isinstance(result, DatasetResult | ModelResult) else ""
