"""Where labels stand in a matplotlib plot, so that none covers another."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.transforms import Bbox

from harness.report.plot_shapes import Point
from harness.report.plot_style import short

_FONT = 7
_LETTER = 0.6 * _FONT  # mean width of a letter, points
#: offsets to try, in points, the nearest first
_OFFSETS = [
    offset for d in range(5, 90, 6) for offset in ((d, -d), (-d, d), (5, -d - 4), (-5, d + 4), (d, d), (-d, -d))
]


def spread_out(wanted: Sequence[float], gap: float) -> list[float]:
    """Heights (n,) in [0, 1], at least `gap` apart where they fit, as near to those wanted as least squares finds.

    Isotonic regression by pooling neighbours: Barlow et al., Statistical Inference under Order Restrictions (1972).
    """
    order = np.argsort(wanted, kind="stable")
    steps = gap * np.arange(len(order))
    groups: list[list[float]] = []
    for height in (np.asarray(wanted, dtype=float)[order] - steps).tolist():
        groups.append([height])
        while len(groups) > 1 and np.mean(groups[-2]) > np.mean(groups[-1]):
            last = groups.pop()
            groups[-1] += last
    level = [float(np.mean(group)) for group in groups for _ in group]
    found = np.empty(len(order))
    found[order] = np.clip(level, 0, max(0.0, 1 - gap * (len(order) - 1))) + steps
    return found.tolist()


def place(ax: Axes, points: Sequence[Point]) -> None:
    """Write each point's label near it, clear of the other labels and points, with a fine line where it is far."""
    if not points:
        return
    ax.margins(0.1, 0.16)
    figure = ax.figure.figure
    figure.draw_without_rendering()
    scale = 72 / figure.dpi
    spots = [ax.transData.transform((p.at, p.value)) * scale for p in points]
    inside = Bbox(ax.get_window_extent().get_points() * scale)
    known = [p for p in points if p.low < p.high]
    ends = [(ax.transData.transform([(p.at, p.low), (p.at, p.high)]) * scale).tolist() for p in known]
    taken = [_around(x, y, 4) for x, y in spots]
    taken += [_around(*spot, 2) for one, other in pairwise(spots) for spot in np.linspace(one, other, 40)]
    taken += [Bbox.from_extents(x - 1, low, x + 1, high) for (x, low), (_, high) in ends]
    for p, (x, y) in zip(points, spots, strict=True):
        text = short(p.label)
        offset, box = _free((x, y), len(text) * _LETTER, taken, inside)
        taken.append(box)
        far = {
            "arrowprops": {
                "arrowstyle": "-",
                "color": "#a9b0b9",
                "linewidth": 0.6,
                "shrinkA": 0,
                "shrinkB": 2,
            }
        }
        ax.annotate(
            text,
            (p.at, p.value),
            offset,
            textcoords="offset points",
            fontsize=_FONT,
            va="center",
            ha="left" if offset[0] > 0 else "right",
            **(far if np.hypot(*offset) > 9 else {}),
        )


def _around(x: float, y: float, half: float) -> Bbox:
    return Bbox.from_extents(x - half, y - half, x + half, y + half)


def _free(spot: tuple[float, float], width: float, taken: Sequence[Bbox], inside: Bbox) -> tuple[tuple[int, int], Bbox]:
    """The first offset whose text covers nothing and stays inside; the last one where there is none."""
    for dx, dy in _OFFSETS:
        left = spot[0] + dx - (0 if dx > 0 else width)
        box = Bbox.from_extents(left, spot[1] + dy - _FONT * 0.65, left + width, spot[1] + dy + _FONT * 0.65)
        within = inside.x0 <= box.x0 and box.x1 <= inside.x1 and inside.y0 <= box.y0 and box.y1 <= inside.y1
        if within and not any(box.overlaps(other) for other in taken):
            break
    return (dx, dy), box
