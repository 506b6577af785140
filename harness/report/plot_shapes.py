"""What a plot shows, as values: computed once, drawn by `plots` (PNG, SVG) and by `interactive` (HTML)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from harness.stats import Estimate

#: line: bold; thin: a seed behind its mean; outline: a hollow bar; dot: with its interval; speck and ring, which is
#: hollow: without; connector: points in pairs
Style = Literal["line", "thin", "bar", "outline", "dot", "speck", "ring", "diamond", "connector"]

#: colours that a drawing chooses itself, to stand out from its background
INK, MUTED = "ink", "muted"


@dataclass(frozen=True)
class Point:
    """A value with the ends of its interval (nan: none), at a number or in the row of a name.

    `start` is where its bar begins; `label` is written beside it.
    """

    at: float | str
    value: float
    low: float = np.nan
    high: float = np.nan
    start: float = 0.0
    label: str = ""


@dataclass(frozen=True)
class Series:
    """Points of one name; `colour` is #rrggbb, INK or MUTED."""

    name: str
    points: tuple[Point, ...]
    colour: str
    style: Style


@dataclass(frozen=True)
class Panel:
    """Series on common axes. `log` is for y; `ticks` names the places 0, 1, ... of x; `ends` writes names at lines."""

    title: str
    series: tuple[Series, ...]
    x_title: str = ""
    y_title: str = ""
    log: bool = False
    ticks: tuple[str, ...] = ()
    ends: bool = False


@dataclass(frozen=True)
class LineChart:
    """Values over numbers (epochs, cost, rungs), in panels; `shared`: all panels have the same axes."""

    name: str
    title: str
    panels: tuple[Panel, ...]
    columns: int = 1
    shared: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class RowChart:
    """Values to the right of named rows, in panels with the same rows.

    `texts` stand at the right end of each row. `reference` is a vertical line (nan: none), `band` a grey strip of
    that half width around it. `limits` fixes the value axis.
    """

    name: str
    title: str
    value_title: str
    rows: tuple[str, ...]
    panels: tuple[Panel, ...]
    columns: int = 1
    reference: float = np.nan
    band: float = np.nan
    limits: tuple[float, float] | None = None
    texts: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class HeatMap:
    """Differences (rows x columns) around 0; those whose interval holds 0 are drawn light."""

    name: str
    title: str
    value_title: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    cells: tuple[tuple[Point, ...], ...]
    notes: tuple[str, ...] = ()


Chart = LineChart | RowChart | HeatMap


@dataclass(frozen=True)
class LeftOut:
    """A plot that the records do not allow, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class PlotData:
    """Every plot of a study, and those that are left out."""

    study: str
    charts: tuple[Chart, ...]
    left_out: tuple[LeftOut, ...]


def point(at: float | str, estimate: Estimate, start: float = 0.0, label: str = "") -> Point:
    """An estimate as a point; a value and its interval move by `start` where a bar begins there."""
    return Point(at, start + estimate.point, start + estimate.low, start + estimate.high, start, label)


def legend_names(panels: Iterable[Panel]) -> list[str]:
    """The names that a legend explains: those of one colour. A name of several (classes) is not one thing."""
    colours: dict[str, set[str]] = {}
    for series in (s for panel in panels for s in panel.series if s.name and s.points):
        colours.setdefault(series.name, set()).add(series.colour)
    return [name for name, found in colours.items() if len(found) == 1]


def away_from_zero(p: Point) -> bool:
    """Whether the interval is known and lies on one side of 0."""
    return p.low > 0 or p.high < 0
