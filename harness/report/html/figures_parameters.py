"""Scores against the picked values: parallel coordinates, and a slice for each parameter."""

from __future__ import annotations

import html
import itertools
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go

from harness.config.space import ChoiceParameter, Parameter, Scalar
from harness.report.html.figured import Figured
from harness.report.html.figures_edges import edge_warning, winners
from harness.report.html.figures_shared import (
    SEED,
    STATE_COLOURS,
    STATES,
    finished,
    left_out,
    nothing_yet,
    sampled,
    short_number,
    shortened,
    slug,
    value_text,
)
from harness.report.html.search_data import SearchData, SearchTrial, State
from harness.report.plot_style import AMBER, GREY, SKY, VERMILION, hover_safe, plot_safe, short
from harness.search.values import position

_LINES, _DOTS = 300, 400
#: groups of parallel coordinates: upper end as a share of the trials, name, colour, opacity
_GROUPS = (
    (0.1, "best 10 %", VERMILION, 0.9),
    (0.25, "10–25 %", AMBER, 0.6),
    (0.5, "25–50 %", SKY, 0.5),
    (1.0, "lower half", GREY, 0.3),
)
_ROW = 52  # pixels


class _Row(NamedTuple):
    """One axis of the parallel coordinates: where its trials lie, 0-1 or nan, and what to write."""

    title: str
    at: list[float]
    texts: list[str]
    ticks: list[tuple[float, str]]


def parallel_coordinates(data: SearchData) -> Figured:
    """Every trial as a line through its score and all its values.

    Drawn as plain lines: plotly's own parallel coordinates need WebGL and `unsafe-eval`, which the page forbids.
    """
    key, title = "parallel-coordinates", "All parameters at once"
    trials = _scored(data)
    if len(trials) < 2:
        return Figured(key, title, nothing_yet(data, "two trials with a score are needed"))
    shown = sorted(sampled(trials, _LINES), key=lambda t: -(_score(t)))
    rows = [_score_row(data, shown), _epoch_row(shown), *(_row(name, data, shown) for name in data.parameters)]
    figure = go.Figure()
    # the best are drawn last, on top, and the ticks over all
    for which, (_, name, colour, opacity) in reversed(list(zip(_groups(trials, shown), _GROUPS, strict=True))):
        if which:
            figure.add_trace(_lines(rows, which, name, colour, opacity))
    for i, row in enumerate(rows):
        figure.add_trace(_axis(row, -i))
    figure.update_xaxes(visible=False, range=[-0.09, 1.04])
    names = [plot_safe(short(row.title, 15)) for row in rows]
    figure.update_yaxes(
        tickvals=[-i for i in range(len(rows))], ticktext=names, range=[0.6 - len(rows), 0.45], showgrid=False
    )
    words = (
        "Every line is a trial, every row a parameter on its own scale, lowest on the left; left of a row pass trials "
        "that do not have it. Colour is the score, of a stopped trial the one at its rung, which is lower for having "
        f"trained less (see the row of epochs).{left_out(len(shown), len(trials))}"
    )
    return Figured(key, title, words, finished(figure, _ROW * len(rows), legend_traceorder="reversed"))


def slices(data: SearchData) -> list[Figured]:
    """Score against value, a figure for each parameter."""
    return [_slice(data, i, name) for i, name in enumerate(data.parameters)]


def _slice(data: SearchData, index: int, name: str) -> Figured:
    key, title = f"slice-{index}-{slug(name)}", f"Score against {name}"
    having = [t for t in _scored(data) if name in t.picked]
    if not having:
        return Figured(key, title, nothing_yet(data, f"no trial with {name} has a score"))
    parameter, shown = data.parameters[name], sampled(having, _DOTS)
    places = dict(zip((t.trial for t in shown), _places(parameter, [t.picked[name] for t in shown]), strict=True))
    best = {t.trial for t in winners(data, name)}
    figure = go.Figure()
    for state in ("stopped", "going", "complete"):
        if dots := [t for t in shown if t.state == state and t.trial not in best]:
            figure.add_trace(_slice_dots(dots, name, places, state))
    top = [t for t in shown if t.trial in best]
    if top:
        figure.add_trace(_winner_dots(top, name, places))
    figure.update_xaxes(**_value_axis(parameter, name))
    figure.update_yaxes(title_text=data.score_title)
    words = (
        "Dots ran to the end, rings were stopped or are still going and stand at their last score, low for having "
        f"trained less; diamonds are the best {len(top)} that have ended. All other parameters vary as well, so a "
        "slope may be another's."
        f"{_absent(data, name)}{left_out(len(shown), len(having))}"
    )
    warning = edge_warning(data, name)
    return Figured(key, title, words, finished(figure, 210, legend=False), warnings=(warning,) if warning else ())


def _absent(data: SearchData, name: str) -> str:
    conditions = [f"{k} is {' or '.join(map(str, v))}" for k, v in data.parameters[name].when.items()]
    return f" It exists only where {' and '.join(conditions)}." if conditions else ""


def _scored(data: SearchData) -> list[SearchTrial]:
    """Trials that did not fail, have a score and whose values are known; the best first."""
    return [t for t in data.ranked if t.picked]


def _score(trial: SearchTrial) -> float:
    """The best score of a trial that ran to its end; the last one, at its rung, of one that did not."""
    score = trial.score if trial.state == "complete" or trial.last is None else trial.last.score
    return score or 0.0


def _epoch(trial: SearchTrial) -> int:
    row = trial.best if trial.state == "complete" else trial.last
    return row.epoch if row else 0


def _scored_text(trial: SearchTrial) -> str:
    return f"{trial.name}, {STATES[trial.state]}: {_score(trial):.4f} at epoch {_epoch(trial)}"


def _score_row(data: SearchData, trials: Sequence[SearchTrial]) -> _Row:
    scores = np.array([_score(t) for t in trials])
    low, high = float(scores.min()), float(scores.max())
    width = (high - low) or 1.0
    ticks = [(x, f"{low + x * width:.3f}") for x in (0.0, 0.5, 1.0)]
    return _Row(data.score_title, shortened((scores - low) / width), [_scored_text(t) for t in trials], ticks)


def _epoch_row(trials: Sequence[SearchTrial]) -> _Row:
    most = max(1, *(t.ran for t in trials))
    values = sorted({t.ran for t in trials})
    marks = values if len(values) <= 6 else [values[0], values[len(values) // 2], values[-1]]
    at = shortened(t.ran / most for t in trials)
    return _Row("epochs run", at, [f"{t.name}: {t.ran} epochs" for t in trials], [(v / most, str(v)) for v in marks])


def _row(name: str, data: SearchData, trials: Sequence[SearchTrial]) -> _Row:
    parameter = data.parameters[name]
    at = [short_number(position(parameter, t.picked[name])) if name in t.picked else math.nan for t in trials]
    texts = [f"{t.name}: {name} = {value_text(t.picked[name]) if name in t.picked else 'none'}" for t in trials]
    return _Row(name, at, texts, _ticks(parameter))


def _ticks(parameter: Parameter) -> list[tuple[float, str]]:
    if isinstance(parameter, ChoiceParameter):
        labels = list(parameter.values())
        return [(position(parameter, label), short(str(label), max(4, 36 // len(labels)))) for label in labels]
    if parameter.log:
        values: list[Scalar] = [parameter.low, *_decades(parameter.low, parameter.high, 2), parameter.high]
    else:
        values = [parameter.low, (parameter.low + parameter.high) / 2, parameter.high]
    return [(position(parameter, value), f"{value:.3g}") for value in values]


def _decades(low: float, high: float, most: int) -> list[float]:
    """Powers of ten inside a range, so many at most, away from its ends."""
    start, end = math.log10(low), math.log10(high)
    away = (end - start) / (3 * most)
    inside = [e for e in range(math.ceil(start), math.floor(end) + 1) if start + away < e < end - away]
    return [10.0**e for e in inside[:: -(-len(inside) // most) or 1]]


def _axis(row: _Row, y: int) -> go.Scatter:
    """The line of an axis with its ticks written below; text takes the page's colour."""
    return go.Scatter(
        x=[x for x, _ in row.ticks],
        y=[y] * len(row.ticks),
        text=[text for _, text in row.ticks],
        textposition=[_side(x) for x, _ in row.ticks],
        textfont={"size": 10},
        mode="lines+markers+text",
        line={"color": GREY, "width": 1},
        marker={"color": GREY, "size": 5, "symbol": "line-ns-open"},
        showlegend=False,
        hoverinfo="skip",
        cliponaxis=False,
    )


def _side(x: float) -> str:
    return "bottom right" if x < 0.02 else "bottom left" if x > 0.98 else "bottom center"


def _groups(trials: Sequence[SearchTrial], shown: Sequence[SearchTrial]) -> list[list[int]]:
    """The places among those shown of each of _GROUPS of all trials; the first group has one trial at least."""
    by_score = sorted(trials, key=lambda t: -_score(t))
    place = {t.trial: i for i, t in enumerate(by_score)}
    ends = [0, *(max(1, math.floor(end * len(trials))) for end, *_ in _GROUPS)]
    return [
        [i for i, t in enumerate(shown) if start <= place[t.trial] < end] for start, end in itertools.pairwise(ends)
    ]


def _lines(rows: list[_Row], which: Iterable[int], name: str, colour: str, opacity: float) -> go.Scatter:
    """Some trials as one line with gaps."""
    x: list[float | None] = []
    y: list[float | None] = []
    texts: list[str] = []
    for i in which:
        x += [*(-0.06 if math.isnan(row.at[i]) else row.at[i] for row in rows), None]
        y += [*range(0, -len(rows), -1), None]
        texts += [*(hover_safe(row.texts[i]) for row in rows), ""]
    return go.Scatter(
        x=x,
        y=y,
        hovertext=texts,
        hoverinfo="text",
        name=name,
        mode="lines",
        opacity=opacity,
        line={"color": colour, "width": 1.8 if opacity > 0.8 else 1},
    )


def _places(parameter: Parameter, values: Sequence[Scalar]) -> list[float]:
    """Where values stand on the axis; choices in columns, spread with a fixed seed so that dots do not hide others."""
    if not isinstance(parameter, ChoiceParameter):
        return shortened(float(value) for value in values)
    labels = list(parameter.values())
    spread = np.random.default_rng(SEED).uniform(-0.28, 0.28, len(values))
    return shortened(labels.index(value) + off for value, off in zip(values, spread, strict=True))


def _value_axis(parameter: Parameter, name: str) -> dict[str, object]:
    """The whole range, so that the distance to its ends is seen."""
    if isinstance(parameter, ChoiceParameter):
        labels = [_two_lines(str(label), max(5, 42 // len(parameter.values()))) for label in parameter.values()]
        ticks = {"tickvals": list(range(len(labels))), "ticktext": labels, "tickangle": 0}
        return {"title_text": plot_safe(name), "range": [-0.5, len(labels) - 0.5], "showgrid": False} | ticks
    low, high = float(parameter.low), float(parameter.high)
    if parameter.log:
        low, high = math.log10(low), math.log10(high)
    edge = 0.03 * (high - low)
    axis: dict[str, object] = {"title_text": plot_safe(name), "range": [low - edge, high + edge]}
    if parameter.log:
        ends = [float(parameter.low), *_decades(parameter.low, parameter.high, 6), float(parameter.high)]
        axis |= {"type": "log", "tickvals": ends, "ticktext": [f"{value:.3g}" for value in ends]}
    return axis


def _two_lines(label: str, width: int) -> str:
    """A label over two lines where it is wider than so many letters."""
    text = short(label, 2 * width)
    gaps = [i for i, letter in enumerate(text[:-1], 1) if letter in "_- /." and max(i, len(text) - i) <= width]
    middle = min(gaps, key=lambda i: abs(2 * i - len(text)), default=(len(text) + 1) // 2)
    lines = [text] if len(text) <= width else [text[:middle], text[middle:]]
    return "<br>".join(map(html.escape, lines))


def _slice_dots(trials: Sequence[SearchTrial], name: str, places: dict[str, float], state: State) -> go.Scatter:
    whole = state == "complete"
    look = {"symbol": "circle" if whole else "circle-open", "opacity": 0.75 if whole else 0.6}
    return go.Scatter(
        x=[places[t.trial] for t in trials],
        y=shortened(_score(t) for t in trials),
        customdata=[[_number(t), _epoch(t), value_text(t.picked[name])] for t in trials],
        name=state,
        mode="markers",
        marker={"color": STATE_COLOURS[state], "size": 7 if whole else 5, **look},
        hovertemplate=_hover(name, STATES[state]),
    )


def _winner_dots(trials: Sequence[SearchTrial], name: str, places: dict[str, float]) -> go.Scatter:
    trace = _slice_dots(trials, name, places, "complete")
    trace.update(
        name=f"best {len(trials)}",
        marker={"symbol": "diamond", "size": 9, "color": VERMILION, "opacity": 1},
        customdata=[[_number(t), _epoch(t), value_text(t.picked[name]), STATES[t.state]] for t in trials],
        hovertemplate=_hover(name, "%{customdata[3]}"),
    )
    return trace


def _hover(name: str, state: str) -> str:
    return (
        f"trial %{{customdata[0]}}, {state}<br>{hover_safe(name)} = %{{customdata[2]}}<br>"
        "score %{y:.4f} at epoch %{customdata[1]}<extra></extra>"
    )


def _number(trial: SearchTrial) -> int | str:
    return trial.trial if trial.number is None else trial.number
