"""The plots of an ablation as PNG (150 dpi) and SVG files; the same records give the same bytes."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from harness.errors import DataError
from harness.report.interactive import write_interactive
from harness.report.plot_data import plot_data
from harness.report.plot_figures import DPI, STYLE, WIDTH, draw, settle
from harness.report.plot_shapes import Chart, PlotData
from harness.report.plot_style import short
from harness.report.records import AblationRecords
from harness.store import write_bytes, write_text

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
    pictures: Mapping[str, Sequence[NDArray[np.uint8]]],
    titles: Sequence[str],
    legend: Mapping[str, str] | None = None,
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
    tall = WIDTH / across * height / width + 0.22
    with matplotlib.rc_context(STYLE):
        figure = Figure((WIDTH, len(titles) * (down * tall + 0.2) + 0.4 * bool(legend)), layout="constrained")
        blocks = np.atleast_1d(figure.subfigures(len(titles), 1))
        for number, (block, title) in enumerate(zip(blocks, titles, strict=True)):
            block.suptitle(title, x=0.01, ha="left", fontsize=8, fontweight="bold")
            axes = block.subplots(down, across, squeeze=False).ravel()
            for ax in axes:
                ax.set_axis_off()
            for ax, (name, column) in zip(axes, pictures.items(), strict=False):
                ax.imshow(column[number], interpolation="none")
                ax.set_title(short(name), fontsize=7, pad=2)
        if legend:
            handles = [Patch(color=colour, label=name) for name, colour in legend.items()]
            figure.legend(handles=handles, loc="outside lower left", ncols=6)
        settle(figure)
        return _bytes(figure, "png")


def _write_chart(chart: Chart, out: Path) -> list[Path]:
    paths = [out / f"{chart.name}.png", out / f"{chart.name}.svg"]
    with matplotlib.rc_context(STYLE):
        figure = draw(chart)
        settle(figure)
        for path in paths:
            write_bytes(path, _bytes(figure, path.suffix[1:]))
    return paths


def _bytes(figure: Figure, kind: str) -> bytes:
    # what a library writes of itself would change with its version, and dates with every run
    metadata = {"Software": None} if kind == "png" else {"Date": None, "Creator": None}
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, dpi=DPI, metadata=metadata)
    return buffer.getvalue()


def _write_left_out(data: PlotData, out: Path) -> list[Path]:
    path = out / "plots_left_out.txt"
    if not data.left_out:
        path.unlink(missing_ok=True)
        return []
    write_text(path, "".join(f"{one.name}: {one.reason}\n" for one in data.left_out))
    return [path]


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
