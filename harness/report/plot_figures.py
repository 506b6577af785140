"""Charts as matplotlib figures, through objects alone: no state is shared with another use of matplotlib."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator
from matplotlib.transforms import Bbox
from numpy.typing import NDArray

from harness.report.plot_labels import place, spread_out
from harness.report.plot_shapes import (
    INK,
    MUTED,
    Chart,
    HeatMap,
    LineChart,
    Panel,
    Point,
    RowChart,
    Series,
    away_from_zero,
    legend_names,
)
from harness.report.plot_style import DIVERGING, short

DPI = 150
WIDTH = 7.2  # inches, the width of a page's text
_INK, _MUTED, _GRID, _BAND = "#22262b", "#6b7280", "#e4e7eb", "#eceef1"
STYLE = {
    "font.family": "DejaVu Sans", "font.size": 8, "axes.titlesize": 8, "axes.labelsize": 8, "axes.labelcolor": _INK,
    "axes.edgecolor": "#b8bec6", "axes.linewidth": 0.6, "axes.spines.top": False, "axes.spines.right": False,
    "axes.grid": True, "axes.axisbelow": True, "axes.titlelocation": "left", "axes.titlepad": 4, "grid.color": _GRID,
    "grid.linewidth": 0.6, "xtick.color": _MUTED, "ytick.color": _MUTED, "xtick.labelsize": 7, "ytick.labelsize": 7,
    "xtick.major.size": 0, "ytick.major.size": 0, "xtick.labelcolor": _INK, "ytick.labelcolor": _INK,
    "text.color": _INK, "figure.facecolor": "white", "axes.unicode_minus": True, "legend.frameon": False,
    "legend.fontsize": 7, "figure.constrained_layout.h_pad": 0.06, "figure.constrained_layout.w_pad": 0.06,
    # ids in the file, and letters as outlines: the same bytes and the same look everywhere
    "svg.hashsalt": "harness", "svg.fonttype": "path",
}  # fmt: skip
_MARKERS = {"dot": "o", "speck": "o", "ring": "o", "diamond": "D"}


def draw(chart: Chart) -> Figure:
    """A chart as a figure, of the width of a page's text; draw and save it within `rc_context` of the style."""
    if isinstance(chart, LineChart):
        return _line_chart(chart)
    return _row_chart(chart) if isinstance(chart, RowChart) else _heat_map(chart)


def settle(figure: Figure) -> None:
    """Lay a figure out once, for the same look in every file, and the same bytes of each.

    The solver's last digits differ from process to process, and ids in SVG files follow from them.
    """
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for part in figure.subfigs:
        part.bbox_relative.set_points(part.bbox_relative.get_points().round(5))
        for ax in part.axes:
            ax.set_position(Bbox(ax.get_position().get_points().round(5)))
        for text in part.texts:
            text.set_position(np.round(text.get_position(), 5))


def _line_chart(chart: LineChart) -> Figure:
    down = -(-len(chart.panels) // chart.columns)
    tall = 3.4 if len(chart.panels) == 1 else {1: 2.4, 2: 2.1}.get(chart.columns, 1.5)
    figure, axes = _frame(chart, down, tall * down, sharex=chart.shared, sharey=chart.shared)
    for i, (ax, panel) in enumerate(zip(axes.flat, chart.panels, strict=False)):
        _draw_lines(ax, panel, tall)
        if chart.shared and i % chart.columns:
            ax.set_ylabel("")
        if chart.shared and i + chart.columns < len(chart.panels):
            ax.set_xlabel("")
        elif chart.shared:
            ax.tick_params(labelbottom=True)
    _add_legend(figure, axes, chart)
    return figure


def _draw_lines(ax: Axes, panel: Panel, tall: float) -> None:
    for series in panel.series:
        _draw_line(ax, series, bool(panel.ticks) or any(p.label for p in series.points))
    ax.set_title(short(panel.title, 30), fontweight="bold", fontsize=7.5)
    ax.set(xlabel=panel.x_title, ylabel=panel.y_title)
    if panel.log:
        ax.set_yscale("log")
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if _decades(ax) < 1.5 else (1,)))
        ax.yaxis.set_major_formatter(lambda rate, _: f"{rate:.0e}")
        ax.yaxis.set_minor_locator(NullLocator())
    if panel.ticks:
        ax.set_xticks(range(len(panel.ticks)), [short(name) for name in panel.ticks], rotation=30, ha="right")
    elif panel.x_title == "epoch":
        ax.xaxis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=1))
    if panel.ends:
        _name_ends(ax, [s for s in panel.series if s.style == "line"], tall)
    place(ax, [p for s in panel.series for p in s.points if p.label])


def _draw_line(ax: Axes, series: Series, named: bool) -> None:
    colour = _colour(series.colour)
    x, y = ([getattr(p, k) for p in series.points] for k in ("at", "value"))
    if series.style in _MARKERS:
        ax.plot(x, y, "o", color=colour, markersize=4, markeredgecolor="white", markeredgewidth=0.7, zorder=4)
        return
    thin = series.style == "thin"
    marked = not thin and (len(x) == 1 or named)
    ax.plot(
        x,
        y,
        color=colour,
        linewidth=0.7 if thin else 1.6,
        alpha=0.4 if thin else 1,
        zorder=2 if thin else 3,
        label="_" if thin else series.name,
        marker="o" if marked else None,
        markersize=2.6,
    )
    for p in series.points:
        if p.label and not np.isnan(p.low):
            ax.plot([p.at, p.at], [p.low, p.high], color=colour, linewidth=0.9, alpha=0.55, zorder=2)


def _decades(ax: Axes) -> float:
    low, high = ax.get_ylim()
    return float(np.log10(high / low))


def _name_ends(ax: Axes, lines: Sequence[Series], tall: float) -> None:
    """Write each line's name beside its last point, apart from one another."""
    ends = [(s, known[-1]) for s in lines if (known := [p for p in s.points if not np.isnan(p.value)])]
    if not ends:
        return
    ax.set_ylim(ax.get_ylim())
    right = ax.get_xlim()[1]
    to_axes = ax.transData + ax.transAxes.inverted()
    heights = [float(to_axes.transform((p.at, p.value))[1]) for _, p in ends]
    for (series, end), height in zip(ends, spread_out(heights, 0.115 / (tall - 0.6)), strict=True):
        ax.annotate(
            series.name,
            (end.at, end.value),
            (1.035, height),
            textcoords="axes fraction",
            fontsize=6.5,
            va="center",
            arrowprops={
                "arrowstyle": "-",
                "color": _colour(series.colour),
                "linewidth": 0.8,
                "shrinkA": 1,
                "shrinkB": 1,
                "relpos": (0, 0.5),
            },
            annotation_clip=False,
        )
    ax.set_xlim(right=right)


def _row_chart(chart: RowChart) -> Figure:
    down = -(-len(chart.panels) // chart.columns)
    bars = max(_bars_in_a_row(panel) for panel in chart.panels)
    tall = max(0.9, len(chart.rows) * (0.125 * bars + 0.045 if len(chart.panels) == 1 else 0.155) + 0.35)
    if len(chart.panels) == 1:
        tall = max(tall, 0.235 * len(chart.rows) + 0.4)
    figure, axes = _frame(chart, down, tall * down, sharex=True, sharey=True)
    for i, (ax, panel) in enumerate(zip(axes.flat, chart.panels, strict=False)):
        _draw_rows(ax, panel, chart)
        ax.tick_params(labelbottom=i + chart.columns >= len(chart.panels))
    axes[0, 0].figure.supxlabel(chart.value_title, fontsize=8)
    _add_legend(figure, axes, chart)
    return figure


def _draw_rows(ax: Axes, panel: Panel, chart: RowChart) -> None:
    places = {row: i for i, row in enumerate(chart.rows)}
    ax.set_title(short(panel.title, 15) if chart.columns > 3 else panel.title, fontweight="bold", fontsize=7)
    ax.set_yticks(range(len(chart.rows)), [short(row) for row in chart.rows])
    ax.set_ylim(len(chart.rows) - 0.45, -0.55)
    ax.grid(axis="y", visible=len(chart.rows) > 12 and len(chart.panels) == 1)
    if chart.limits:
        ax.set_xlim(*chart.limits)
        ax.xaxis.set_major_locator(MaxNLocator(2, steps=[5, 10]))
    if not np.isnan(chart.band):
        ax.axvspan(chart.reference - chart.band, chart.reference + chart.band, color=_BAND, zorder=0)
    if not np.isnan(chart.reference):
        ax.axvline(chart.reference, color=_MUTED, linewidth=0.8, zorder=1)
    bars = _bars_in_a_row(panel)
    seen: dict[str | float, int] = {}
    for series in panel.series:
        for p in series.points if series.style in ("bar", "outline") else ():
            height = 0.74 / bars
            offset = (seen.get(p.at, 0) - (bars - 1) / 2) * height
            seen[p.at] = seen.get(p.at, 0) + 1
            _draw_bar(ax, series, p, places[p.at] + offset, height)
        if series.style in _MARKERS or series.style == "connector":
            _draw_marks(ax, series, places)
    for row, text in zip(chart.rows, chart.texts, strict=False):
        ax.annotate(text, (1.02, places[row]), xycoords=("axes fraction", "data"), va="center", fontsize=7)


def _draw_bar(ax: Axes, series: Series, p: Point, y: float, height: float) -> None:
    colour = _colour(series.colour)
    face = colour if series.style == "bar" else "none"
    # bars from 0 stand on the axis; others need air before the first
    ax.use_sticky_edges = ax.use_sticky_edges and p.start == 0
    ax.barh(
        y,
        p.value - p.start,
        height * 0.94,
        left=p.start,
        label=series.name or "_",
        zorder=2,
        facecolor=face,
        edgecolor=colour,
        linewidth=0.9,
    )
    _whisker(ax, p, y)
    if p.label:
        end = np.nanmax([p.value, p.high])
        ax.annotate(p.label, (end, y), (2, 0), textcoords="offset points", va="center", fontsize=6)


def _draw_marks(ax: Axes, series: Series, places: Mapping[str, int]) -> None:
    colour = _colour(series.colour)
    y, x = [places[p.at] for p in series.points], [p.value for p in series.points]
    if series.style == "connector":
        for i in range(0, len(x), 2):
            ax.plot(x[i : i + 2], y[i : i + 2], color="#a9b0b9", linewidth=0.8, zorder=1)
        return
    for p, row in zip(series.points, y, strict=True) if series.style == "dot" else ():
        _whisker(ax, p, row, colour)
    face = "white" if series.style == "ring" else colour
    edge = colour if series.style == "ring" else "white"
    ax.plot(
        x,
        y,
        _MARKERS[series.style],
        color=face,
        markeredgecolor=edge,
        markersize=5,
        zorder=4,
        label=series.name or "_",
        markeredgewidth=1.1 if series.style == "ring" else 0.5,
    )


def _whisker(ax: Axes, p: Point, y: float, colour: str = _INK) -> None:
    if not np.isnan(p.low):
        ax.plot([p.low, p.high], [y, y], color=colour, linewidth=1.0, solid_capstyle="butt", zorder=3)


def _heat_map(chart: HeatMap) -> Figure:
    figure, axes = _frame(chart, 1, 0.24 * len(chart.rows) + 0.9)
    ax = axes[0, 0]
    values = 100 * np.array([[p.value for p in row] for row in chart.cells])
    most = max(1.0, float(np.nanmax(np.abs(values), initial=0)))
    colours = LinearSegmentedColormap.from_list("difference", DIVERGING).with_extremes(bad="white")
    image = ax.imshow(values, cmap=colours, vmin=-most, vmax=most, aspect="auto")
    ax.grid(False)
    ax.spines[:].set_visible(False)
    ax.set_yticks(range(len(chart.rows)), [short(row) for row in chart.rows])
    ax.set_xticks(range(len(chart.columns)), [short(name, 18) for name in chart.columns], rotation=30, ha="right")
    for y, row in enumerate(chart.cells):
        for x, p in enumerate(row):
            _cell(ax, x, y, p, most)
    bar = figure.colorbar(image, ax=ax, shrink=0.9, pad=0.02, aspect=18)
    bar.outline.set_visible(False)
    bar.set_label(chart.value_title, fontsize=7)
    return figure


def _cell(ax: Axes, x: int, y: int, p: Point, most: float) -> None:
    text = "–" if np.isnan(p.value) else f"{100 * p.value:+.1f}".replace("-", "−")
    dark = abs(100 * p.value) > 0.62 * most
    sure = away_from_zero(p)
    ax.text(
        x,
        y,
        text,
        ha="center",
        va="center",
        fontsize=6.5,
        fontweight="bold" if sure else "normal",
        color="white" if dark else _INK if sure else _MUTED,
    )


def _frame(chart: Chart, down: int, tall: float, **shared: bool) -> tuple[Figure, NDArray]:
    """A figure of a title with a legend, as many axes as the chart has panels, and notes at its foot."""
    notes = [line for note in chart.notes for line in textwrap.wrap(note, 128)]
    names = _legend_of(chart)
    across = _legend_columns(names)
    parts = (0.3 + 0.16 * -(-len(names) // across), tall + 0.35, 0.13 * len(notes) + 0.04)
    figure = Figure((WIDTH, sum(parts)), dpi=DPI, layout="constrained")
    head, body, foot = figure.subfigures(3, 1, height_ratios=parts)
    head.text(0.012, 1 - 0.1 / parts[0], chart.title, fontsize=9.5, fontweight="bold", va="top")
    foot.text(0.012, 1, "\n".join(notes), fontsize=6.5, color=_MUTED, va="top", linespacing=1.3)
    axes = body.subplots(down, 1 if isinstance(chart, HeatMap) else chart.columns, squeeze=False, **shared)
    for ax in axes.flat[1 if isinstance(chart, HeatMap) else len(chart.panels) :]:
        ax.set_axis_off()
    return figure, axes


def _add_legend(figure: Figure, axes: NDArray, chart: Chart) -> None:
    """Below the title, one for all panels."""
    found = {label: h for ax in axes.flat for h, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    names = [name for name in _legend_of(chart) if name in found]
    if names:
        figure.subfigs[0].legend(
            [found[name] for name in names],
            [short(name) for name in names],
            loc="lower left",
            ncols=_legend_columns(names),
            bbox_to_anchor=(0.004, -0.04),
            borderaxespad=0,
            columnspacing=1.4,
            handlelength=1.2,
            labelspacing=0.35,
        )


def _legend_of(chart: Chart) -> list[str]:
    if isinstance(chart, HeatMap) or any(panel.ends for panel in chart.panels):
        return []
    return legend_names(chart.panels)


def _legend_columns(names: Sequence[str]) -> int:
    """As many as the width holds, in rows of like length."""
    if not names:
        return 1
    most = max(1, min(len(names), 118 // (max(len(short(name)) for name in names) + 6)))
    return -(-len(names) // -(-len(names) // most))


def _bars_in_a_row(panel: Panel) -> int:
    counts: dict[str | float, int] = {}
    for series in panel.series:
        for p in series.points if series.style in ("bar", "outline") else ():
            counts[p.at] = counts.get(p.at, 0) + 1
    return max(counts.values(), default=1)


def _colour(name: str) -> str:
    return {INK: _INK, MUTED: _MUTED}.get(name, name)
