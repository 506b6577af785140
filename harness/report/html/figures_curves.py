"""How the scores rose: learning curves, and the best score so far."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from harness.report.html.figured import Figured
from harness.report.html.figures_shared import (
    KEPT,
    STATE_COLOURS,
    STATES,
    about,
    counted,
    device_unit,
    finished,
    left_out,
    nothing_yet,
    sampled,
    short_number,
    shortened,
)
from harness.report.html.search_data import SearchData, SearchTrial, State
from harness.report.plot_style import BLUE, GREY, VERMILION, ordered_colours, plural
from harness.store import EpochRow

#: best trials in colour, and how many of them a legend has room for on a phone
_COLOURED, _NAMED = 10, 5
_CURVES, _POINTS_A_CURVE, _DOTS = 300, 60, 500
_STEPS = 400


def learning_curves(data: SearchData) -> Figured:
    """Score against epoch of every trial."""
    key, title = "learning-curves", "Learning curves"
    trials = [*data.ranked, *(t for t in data.of("failed", "infeasible") if t.epochs)]
    if not trials:
        return Figured(key, title, nothing_yet(data, "no trial has finished an epoch"))
    shown = sampled(trials, _CURVES)
    best = [t for t in data.ranked if t.state != "going"][:_COLOURED]
    coloured = {t.trial for t in best}
    figure = go.Figure()
    for state in ("stopped", "failed", "infeasible", "going", "complete"):
        if others := [t for t in shown if t.state == state and t.trial not in coloured]:
            figure.add_trace(_faint_curves(others, state, _points_a_curve(shown)))
    for place, trial in reversed(list(enumerate(best))):
        colour = VERMILION if place == 0 else ordered_colours(len(best) - 1)[place - 1]
        figure.add_trace(_best_curve(trial, place, colour))
    _mark_rungs(figure, data)
    figure.update_xaxes(title_text="epoch", rangemode="tozero")
    figure.update_yaxes(title_text=data.score_title)
    words = (
        f"Score after every epoch; the best {len(best)} trials in colour, the very best thick. "
        f"{_rungs_in_words(data)}{left_out(len(shown), len(trials))}"
    )
    return Figured(key, title, words, finished(figure, 340, legend_traceorder="reversed"))


def best_over_trials(data: SearchData) -> Figured:
    """The best score so far against trials ended."""
    key, title = "best-over-trials", "Best score over trials"
    ended = [data.by_id[trial] for trial in data.ended]
    scored = [(i, t) for i, t in enumerate(ended, 1) if t.score is not None and t.state not in ("failed", "infeasible")]
    if not scored:
        return Figured(key, title, nothing_yet(data, "no trial has ended with a score"))
    figure = go.Figure()
    shown = {t.trial for t in sampled([t for t in data.ranked if t.state != "going"], _DOTS)}
    for state in ("stopped", "complete"):
        if dots := [(i, t) for i, t in scored if t.state == state and t.trial in shown]:
            figure.add_trace(_dots(dots, state, {t.trial for t in data.ranked[:KEPT]}))
    at, best = _running_best([i for i, _ in scored], [t.score or 0.0 for _, t in scored], len(ended))
    figure.add_trace(_steps(at, best, "ended trials: %{x}"))
    figure.update_xaxes(title_text="trials ended", rangemode="tozero")
    figure.update_yaxes(title_text=f"best {data.score_title}")
    words = (
        "The best score of all trials that had ended, in the order of their ends; each dot is a trial's own best. "
        "The highest of many scores is a little too high, and only other seeds tell by how much."
        f"{left_out(len(shown), len(scored))}"
    )
    return Figured(key, title, words, finished(figure, 280))


def best_over_cost(data: SearchData) -> Figured:
    """The best score so far against the time spent."""
    key, title = "best-over-cost", "Best score over time spent"
    if not data.journal:
        return Figured(key, title, nothing_yet(data, "no trial has finished an epoch"))
    spent = np.cumsum([row.all_seconds for row in data.journal])
    unit, seconds = device_unit(data, float(spent[-1]))
    failed = {t.trial for t in data.of("failed", "infeasible")}
    counts = [i for i, row in enumerate(data.journal) if row.trial not in failed]
    if not counts:
        return Figured(key, title, nothing_yet(data, "all trials with a score failed"))
    at, best = _running_best([spent[i] / seconds for i in counts], [data.journal[i].score for i in counts], None)
    at, best = [*at, float(spent[-1]) / seconds], [*best, best[-1]]
    figure = go.Figure(_steps(shortened(at), best, f"{unit} spent: %{{x}}"))
    figure.update_xaxes(title_text=f"{unit} of training and validation", rangemode="tozero")
    figure.update_yaxes(title_text=f"best {data.score_title}")
    words = (
        f"The best score of any finished epoch against the time that all trials together had spent, "
        f"{spent[-1] / seconds:.3g} {unit}. Trials that run side by side are added up, so this is "
        "not the time on the clock."
    )
    return Figured(key, title, words, finished(figure, 260, legend=False))


def _faint_curves(trials: Sequence[SearchTrial], state: State, points: int) -> go.Scatter:
    """All curves of one kind as one line with gaps."""
    x: list[int | None] = []
    y: list[float | None] = []
    names: list[str | int | None] = []
    for trial in trials:
        rows = _thinned(trial.epochs, points)
        x += [*(row.epoch for row in rows), None]
        y += [*(short_number(row.score) for row in rows), None]
        names += [trial.trial if trial.number is None else trial.number] * (len(rows) + 1)
    # a trial that was stopped at the first epoch is a dot
    return go.Scatter(
        x=x,
        y=y,
        customdata=names,
        name=counted(trials, state),
        mode="lines+markers",
        opacity=0.35 if state == "stopped" else 0.6,
        line={
            "color": STATE_COLOURS[state],
            "width": 1,
            "dash": "dot" if state in ("failed", "infeasible") else "solid",
        },  # fmt: skip
        marker={"size": 3},
        hovertemplate=f"trial %{{customdata}}, {STATES[state]}<br>epoch %{{x}}: %{{y:.4f}}<extra></extra>",
    )


def _best_curve(trial: SearchTrial, place: int, colour: str) -> go.Scatter:
    rows = _thinned(trial.epochs, 4 * _POINTS_A_CURVE)
    return go.Scatter(
        x=[row.epoch for row in rows],
        y=shortened(row.score for row in rows),
        name=trial.name,
        showlegend=place < _NAMED,
        mode="lines+markers",
        line={"color": colour, "width": 3 if place == 0 else 1.8},
        marker={"size": 4},
        hovertemplate=f"epoch %{{x}}: %{{y:.4f}}<br>{about(trial)}<extra></extra>",
    )


def _points_a_curve(trials: Sequence[SearchTrial]) -> int:
    return max(12, min(_POINTS_A_CURVE, 12_000 // len(trials)))


def _thinned(rows: Sequence[EpochRow], most: int) -> list[EpochRow]:
    """At most so many rows, evenly, the first and the last among them."""
    if len(rows) <= most:
        return list(rows)
    return [rows[i] for i in sorted(set(np.linspace(0, len(rows) - 1, most).round().astype(int).tolist()))]


def _mark_rungs(figure: go.Figure, data: SearchData) -> None:
    for rung in data.rungs:
        figure.add_vline(rung, line={"color": GREY, "width": 1, "dash": "dot"}, layer="below")


def _rungs_in_words(data: SearchData) -> str:
    if not data.rungs:
        return "Every trial was to run to its end."
    stopped = plural(len(data.of("stopped")), "trial")
    epochs = ", ".join(map(str, data.rungs))
    return f"Dotted lines are rungs (epoch {epochs}), where {stopped} stopped: how those would have ended is not known."


def _dots(dots: list[tuple[int, SearchTrial]], state: State, told: set[str]) -> go.Scatter:
    return go.Scatter(
        x=[i for i, _ in dots],
        y=shortened(t.score or 0.0 for _, t in dots),
        name=state,
        mode="markers",
        marker={"color": STATE_COLOURS[state], "size": 5, "opacity": 0.6},
        hovertext=[about(t) if t.trial in told else t.name for _, t in dots],
        hovertemplate="%{y:.4f}<br>%{hovertext}<extra></extra>",
    )


def _running_best(at: list[float], scores: list[float], end: float | None) -> tuple[list[float], list[float]]:
    """The places at which the best score rose, with it, and once more at the end."""
    best = np.maximum.accumulate(scores)
    rises = np.flatnonzero(np.concatenate([[True], np.diff(best) > 0]))
    if len(rises) > _STEPS:
        rises = rises[np.linspace(0, len(rises) - 1, _STEPS).round().astype(int)]
    places, values = [at[i] for i in rises], shortened(best[rises])
    return ([*places, end], [*values, values[-1]]) if end is not None else (places, values)


def _steps(at: list[float], best: list[float], where: str) -> go.Scatter:
    return go.Scatter(
        x=at,
        y=best,
        name="best so far",
        mode="lines",
        line={"shape": "hv", "color": BLUE, "width": 2},
        hovertemplate=f"{where}<br>best so far %{{y:.4f}}<extra></extra>",
    )
