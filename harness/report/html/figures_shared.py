"""What the figures of a search share: their look, their words, and how points are chosen where there are many."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from harness.config.space import Scalar
from harness.report.html.search_data import SearchData, SearchTrial, State
from harness.report.plot_style import AMBER, BLUE, GREY, PURPLE, VERMILION, hover_safe, plural

#: of every random choice of a figure
SEED = 0
#: best trials that every figure of single trials shows, whatever it leaves out
KEPT = 50

#: how a trial's end is written; in a legend, which must fit a phone, its own word
STATES: dict[State, str] = {
    "complete": "ran to the end",
    "stopped": "stopped at a rung",
    "failed": "failed",
    "infeasible": "infeasible",
    "going": "still going",
}
STATE_COLOURS: dict[State, str] = {
    "complete": BLUE, "stopped": GREY, "failed": VERMILION, "infeasible": PURPLE, "going": AMBER
}  # fmt: skip

_LEGEND_DOWN = 62  # pixels from the axes to a legend below them
_LEGEND = {
    "orientation": "h", "x": 0, "xanchor": "left", "yanchor": "top", "font": {"size": 11},
}  # fmt: skip


def finished(figure: go.Figure, height: int, legend: bool = True, **layout: Any) -> go.Figure:
    """A figure on a transparent ground; the page gives it its colours of text and grid.

    Args:
        height: of the axes, pixels; room for a legend is added.
    """
    letters = sum(len(trace.name or "") + 8 for trace in figure.data if trace.showlegend is not False)
    below = 50 + legend * 22 * -(-letters // 60)
    figure.update_layout(
        template="none",
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"size": 12},
        margin={"l": 10, "r": 14, "t": 20, "b": below},
        height=height + 20 + below,
        hovermode="closest",
        showlegend=legend,
        legend=_LEGEND | {"y": -_LEGEND_DOWN / height},
        **layout,
    )
    figure.update_xaxes(automargin=True, title_standoff=8, zeroline=False)
    figure.update_yaxes(automargin=True, title_standoff=8, zeroline=False)
    return figure


def sampled(trials: Sequence[SearchTrial], most: int) -> list[SearchTrial]:
    """All of the first KEPT of some trials, the best first, and as many others as fit, drawn with a fixed seed."""
    if len(trials) <= most:
        return list(trials)
    drawn = np.random.default_rng(SEED).choice(len(trials) - KEPT, most - KEPT, replace=False)
    return [*trials[:KEPT], *(trials[KEPT + i] for i in sorted(drawn))]


def left_out(shown: int, of: int) -> str:
    """A sentence where a figure does not show all; empty where it does."""
    return "" if shown == of else f" Shown: the best {KEPT} and a fixed sample of the others, {shown} of {of} trials."


def short_number(value: float, digits: int = 4) -> float:
    """A number with so many significant digits, to keep a page small."""
    return float(f"{value:.{digits}g}")


def shortened(values: Iterable[float], digits: int = 4) -> list[float]:
    return [short_number(value, digits) for value in values]


def value_text(value: Scalar) -> str:
    """A picked value."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def about(trial: SearchTrial) -> str:
    """A trial's end and all its values, as lines of a hover text."""
    lines = [f"{trial.name}, {STATES[trial.state]}"]
    if trial.best:
        lines.append(f"best score {trial.best.score:.4f} at epoch {trial.best.epoch} of {trial.ran} run")
    lines += [f"{name} = {value_text(value)}" for name, value in trial.picked.items()]
    return "<br>".join(map(hover_safe, lines))


def slug(text: str) -> str:
    """A name as part of an id."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def counted(trials: Sequence[SearchTrial], state: State) -> str:
    """`stopped (12)`."""
    return f"{state} ({len(trials)})"


def time_unit(seconds: float) -> tuple[str, float]:
    """The unit, and the seconds in it, in which a duration reads well."""
    if seconds >= 2 * 3600:
        return "hours", 3600.0
    return ("minutes", 60.0) if seconds >= 2 * 60 else ("seconds", 1.0)


def device_unit(data: SearchData, seconds: float) -> tuple[str, float]:
    """`GPU hours` and the seconds of a trial in one of them: a trial on two GPUs spends two hours in one."""
    unit, inside = time_unit(seconds * data.device.per_trial)
    return f"{data.device.name} {unit}".strip(), inside / data.device.per_trial


def nothing_yet(data: SearchData, needed: str) -> str:
    """Why a figure is missing."""
    have = f"{plural(len(data.of('complete')), 'trial')} ran to the end, {len(data.of('stopped'))} stopped at a rung"
    return f"Nothing to draw yet: {needed}. So far {have} and {len(data.of('failed'))} failed."
