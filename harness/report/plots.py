"""The plots of an ablation as PNG (150 dpi) and SVG files; the same records give the same bytes."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray

from harness.errors import DataError
from harness.report.interactive import write_interactive
from harness.report.plot_data import plot_data
from harness.report.plot_labels import place, spread_out
from harness.report.plot_shapes import (
    INK,
    MUTED,
    Chart,
    HeatMap,
    LineChart,
    Panel,
    PlotData,
    Point,
    RowChart,
    Series,
    away_from_zero,
    legend_names,
)
from harness.report.plot_style import DIVERGING, short
from harness.report.records import AblationRecords
from harness.store import write_bytes, write_text

_DPI = 150
_WIDTH = 7.2  # inches, the width of a page's text
_INK, _MUTED, _GRID, _BAND = "#22262b", "#6b7280", "#e4e7eb", "#eceef1"
_STYLE = {
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
_TILES_ACROSS = 4


def write_plots(records: AblationRecords, out: Path) -> list[Path]:
    """Write every plot that the records allow as PNG and SVG, and all of them as plots.html, into a folder.

    What the records do not allow is named, with the reason, in plots_left_out.txt and at the end of plots.html.
    The folder is made where needed. Returns the paths written; raises StudyError as `plot_data` does.
    """
    data = plot_data(records)
    out.mkdir(parents=True, exist_ok=True)
    paths = [path for chart in data.charts for path in _write_chart(chart, out)]
    return [*paths, write_interactive(data, out), *_write_left_out(data, out)]


def tile_sheet(
    pictures: Mapping[str, Sequence[NDArray[np.uint8]]], titles: Sequence[str], legend: Mapping[str, str] | None = None
) -> bytes:
    """A PNG of frames side by side: for each title a block of the picture of that frame from every column.

    Args:
        pictures: column (image, truth, an arm) to RGB pictures, uint8 (H W 3), one for each title.
        titles: names of the frames.
        legend: class name to #rrggbb, drawn below.

    Raises:
        DataError: a column without a picture for each title, or a picture of another type.
    """
    _check_pictures(pictures, titles)
    across = min(_TILES_ACROSS, len(pictures))
    down = -(-len(pictures) // across)
    height, width = next(iter(pictures.values()))[0].shape[:2]
    tall = _WIDTH / across * height / width + 0.22
    with matplotlib.rc_context(_STYLE):
        figure = Figure((_WIDTH, len(titles) * (down * tall + 0.2) + 0.4 * bool(legend)), layout="constrained")
        blocks = np.atleast_1d(figure.subfigures(len(titles), 1))
        for number, (block, title) in enumerate(zip(blocks, titles, strict=True)):
            block.suptitle(title, x=0.01, ha="left", fontsize=8, fontweight="bold")
            axes = block.subplots(down, across, squeeze=False).flat
            for ax in axes:
                ax.set_axis_off()
            for ax, (name, column) in zip(axes, pictures.items(), strict=False):
                ax.imshow(column[number], interpolation="none")
                ax.set_title(short(name), fontsize=7, pad=2)
        if legend:
            handles = [Patch(color=colour, label=name) for name, colour in legend.items()]
            figure.legend(handles=handles, loc="outside lower left", ncols=6)
        return _bytes(figure, "png")


def draw(chart: Chart) -> Figure:
    """A chart as a figure, of the width of a page's text; draw and save it within `rc_context` of the style."""
    if isinstance(chart, LineChart):
        return _line_chart(chart)
    return _row_chart(chart) if isinstance(chart, RowChart) else _heat_map(chart)


def _write_chart(chart: Chart, out: Path) -> list[Path]:
    paths = [out / f"{chart.name}.png", out / f"{chart.name}.svg"]
    with matplotlib.rc_context(_STYLE):
        figure = draw(chart)
        # laid out once, for the same look in both files
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
        for path in paths:
            write_bytes(path, _bytes(figure, path.suffix[1:]))
    return paths


def _bytes(figure: Figure, kind: str) -> bytes:
    # what a library writes of itself would change with its version, and dates with every run
    metadata = {"Software": None} if kind == "png" else {"Date": None, "Creator": None}
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, dpi=_DPI, metadata=metadata)
    return buffer.getvalue()


def _write_left_out(data: PlotData, out: Path) -> list[Path]:
    path = out / "plots_left_out.txt"
    if not data.left_out:
        path.unlink(missing_ok=True)
        return []
    write_text(path, "".join(f"{one.name}: {one.reason}\n" for one in data.left_out))
    return [path]


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
        x, y, color=colour, linewidth=0.7 if thin else 1.6, alpha=0.4 if thin else 1, zorder=2 if thin else 3,
        label="_" if thin else series.name, marker="o" if marked else None, markersize=2.6,
    )  # fmt: skip
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
            series.name, (end.at, end.value), (1.035, height), textcoords="axes fraction", fontsize=6.5, va="center",
            arrowprops={"arrowstyle": "-", "color": _colour(series.colour), "linewidth": 0.8, "shrinkA": 1, "shrinkB": 1,
                        "relpos": (0, 0.5)},
            annotation_clip=False,
        )  # fmt: skip
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
        ax.annotate(text, (1.02, places[row]), xycoords=("axes fraction", "data"), va="center", fontsize=7, annotation_clip=False)


def _draw_bar(ax: Axes, series: Series, p: Point, y: float, height: float) -> None:
    colour = _colour(series.colour)
    filled = {"color": colour, "linewidth": 0.9} if series.style == "bar" else {"facecolor": "none", "edgecolor": colour, "linewidth": 0.9}
    ax.barh(y, p.value - p.start, height * 0.94, left=p.start, label=series.name or "_", zorder=2, **filled)
    _whisker(ax, p, y)
    if p.label:
        end = np.nanmax([p.value, p.high])
        ax.annotate(p.label, (end, y), (2, 0), textcoords="offset points", va="center", fontsize=6, annotation_clip=False)


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
        x, y, _MARKERS[series.style], color=face, markeredgecolor=edge, markersize=5, zorder=4, label=series.name or "_",
        markeredgewidth=1.1 if series.style == "ring" else 0.5,
    )  # fmt: skip


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
        x, y, text, ha="center", va="center", fontsize=6.5, fontweight="bold" if sure else "normal",
        color="white" if dark else _INK if sure else _MUTED,
    )  # fmt: skip


def _frame(chart: Chart, down: int, tall: float, **shared: bool) -> tuple[Figure, NDArray]:
    """A figure of a title with a legend, as many axes as the chart has panels, and notes at its foot."""
    notes = [line for note in chart.notes for line in textwrap.wrap(note, 128)]
    names = _legend_of(chart)
    across = _legend_columns(names)
    parts = (0.3 + 0.16 * -(-len(names) // across), tall + 0.35, 0.13 * len(notes) + 0.04)
    figure = Figure((_WIDTH, sum(parts)), dpi=_DPI, layout="constrained")
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
            [found[name] for name in names], [short(name) for name in names], loc="lower left", ncols=_legend_columns(names),
            bbox_to_anchor=(0.004, -0.04), borderaxespad=0, columnspacing=1.4, handlelength=1.2, labelspacing=0.35,
        )  # fmt: skip


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


def _check_pictures(pictures: Mapping[str, Sequence[NDArray[np.uint8]]], titles: Sequence[str]) -> None:
    if not pictures or not titles:
        raise DataError(f"{len(pictures)} columns and {len(titles)} titles of pictures: give at least 1 of each")
    for name, column in pictures.items():
        if len(column) != len(titles):
            raise DataError(f"column '{name}' has {len(column)} pictures for {len(titles)} titles; give {len(titles)}")
        for picture in column:
            if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
                raise DataError(
                    f"column '{name}': a picture of shape {picture.shape} and type {picture.dtype}; "
                    "give RGB, uint8 (H W 3)"
                )
