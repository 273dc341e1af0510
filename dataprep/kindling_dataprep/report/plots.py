"""The report's plots, as SVG to be put into a page: the page's own fonts, no colour that the page does not have."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

INK, MUTED, RULE, FILL, ACCENT = "#26221c", "#857c70", "#d9d2c5", "#b9c9c4", "#b4532a"
_OF_THE_PAGE = {
    INK: "ink", MUTED: "muted", RULE: "rule", "#ece7dd": "line", FILL: "fill", ACCENT: "accent", "#ffffff": "paper"
}  # fmt: skip
"""The page's names for the colours: it has others in the dark."""
COLUMNS = 3
PANELS_SHOWN = 12

STYLE: Any = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "kindling",  # the same plot gives the same bytes
    "font.size": 9,
    "font.family": "sans-serif",
    "text.color": INK,
    "axes.edgecolor": RULE,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "ytick.left": False,
    "grid.color": "#ece7dd",
}


@dataclass(frozen=True)
class Panel:
    """The values of one measure over all documents, and its threshold."""

    title: str
    values: NDArray[np.float64]
    threshold: float
    is_minimum: bool
    removed: int


def lengths(tokens: NDArray[np.int64]) -> str:
    """How long the documents are that stay, on a logarithmic axis."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.6, 2.3), layout="constrained")
        axes = figure.subplots()
        low, high = max(tokens.min(), 1), max(tokens.max(), 2)
        edges = np.geomspace(low, high * 1.0001, 41)
        axes.hist(tokens, bins=edges.tolist(), color=FILL, edgecolor="white", linewidth=0.6)
        axes.set_xscale("log")
        median = float(np.median(tokens))
        axes.axvline(median, color=ACCENT, linewidth=1)
        axes.annotate(
            f"median {median:,.0f}", (median, 1.03), xycoords=("data", "axes fraction"), ha="center", color=ACCENT
        )
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.set_xlabel("tokens in a document")
        _finish(axes)
        return _svg(figure)


def measures(panels: list[Panel]) -> str:
    """A small histogram for each threshold, the removed side marked; "" where there is none."""
    panels = panels[:PANELS_SHOWN]
    if not panels:
        return ""
    rows = -(-len(panels) // COLUMNS)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.6, 1.45 * rows), layout="constrained")
        grid = figure.subplots(rows, COLUMNS, squeeze=False).ravel()
        for axes, panel in zip(grid, panels, strict=False):
            _draw(axes, panel)
        for axes in grid[len(panels) :]:
            axes.set_axis_off()
        return _svg(figure)


def _draw(axes: Axes, panel: Panel) -> None:
    low = panel.values.min(initial=panel.threshold)
    high = max(np.quantile(np.append(panel.values, low), 0.995), panel.threshold * 1.15)
    values = np.clip(panel.values, low, high)  # the few beyond stand in the last bin
    counts, edges = np.histogram(values, bins=36, range=(low, max(high, low + 1e-9)))
    middles = (edges[:-1] + edges[1:]) / 2
    is_removed = middles < panel.threshold if panel.is_minimum else middles > panel.threshold
    heights = np.sqrt(counts)  # so that one document among thousands is seen
    axes.bar(
        middles, heights, np.diff(edges), color=np.where(is_removed, ACCENT, FILL), edgecolor="white", linewidth=0.4
    )
    axes.axvline(panel.threshold, color=ACCENT, linewidth=1)
    rule, _, measure = panel.title.partition(" · ")
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[a-z])(?=[0-9])", " ", measure).lower()
    sign = "<" if panel.is_minimum else ">"
    axes.set_title(words, pad=12)
    axes.text(
        0,
        1.02,
        f"{rule}: {panel.removed:,} removed at {sign} {panel.threshold:g}",
        transform=axes.transAxes,
        color=MUTED,
        fontsize=7,
    )
    axes.xaxis.set_major_locator(MaxNLocator(4))
    _finish(axes)
    axes.set_yticks([])


def _finish(axes: Axes) -> None:
    axes.grid(axis="y")
    axes.set_axisbelow(True)
    axes.tick_params(length=0, pad=3, labelsize=8)


def _svg(figure: Figure) -> str:
    """The figure without XML declaration, date and fixed size: the page scales it."""
    buffer = io.StringIO()
    metadata: dict[str, Any] = {"Date": None, "Creator": None}
    figure.savefig(buffer, format="svg", transparent=True, metadata=metadata)
    svg = re.sub("|".join(_OF_THE_PAGE), lambda color: f"var(--{_OF_THE_PAGE[color[0]]})", buffer.getvalue())
    return re.sub(
        r'(<svg[^>]*?) width="[^"]*"', r"\1", re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg[svg.index("<svg") :])
    )
