"""What scores cost: the trade with size, speed and memory, and the epochs that were run and saved."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import plotly.graph_objects as go

from harness.report.html.figured import Figured
from harness.report.html.figures_shared import (
    STATE_COLOURS,
    STATES,
    about,
    counted,
    device_unit,
    finished,
    left_out,
    nothing_yet,
    sampled,
    shortened,
)
from harness.report.html.search_data import SearchData, SearchTrial, State
from harness.report.plot_style import BLUE, GREY, VERMILION
from harness.store.front import fronts_of

_DOTS = 400
#: largest over smallest cost from which an axis is logarithmic
_WIDE = 20


def against_parameters(data: SearchData) -> Figured:
    """Score against the size of the model."""
    words = "Whether a larger network earned its size: parameters of the whole model, trained or not."
    return _trade(data, "parameters", "parameters, millions", words, lambda t: t.parameters and t.parameters / 1e6)


def against_speed(data: SearchData) -> Figured:
    """Score against the time of training."""
    words = (
        "Milliseconds of training per image, waiting for frames included; trials that shared a machine slowed each "
        "other, so a difference of a few per cent says nothing."
    )
    return _trade(data, "ms-per-image", "training time, ms per image", words, lambda t: t.ms_per_image)


def against_memory(data: SearchData) -> Figured:
    """Score against the peak of GPU memory."""
    words = "Highest peak of allocated GPU memory of a trial's epochs; what the driver itself holds comes on top."
    return _trade(data, "memory", "peak GPU memory, MB", words, lambda t: t.peak_memory_mb)


def epochs_run(data: SearchData) -> Figured:
    """How many trials trained for how long."""
    key, title = "epochs-run", "Epochs run against epochs planned"
    trials = [t for t in data.trials if t.planned]
    if not any(t.ran for t in trials):
        return Figured(key, title, nothing_yet(data, "no trial has finished an epoch"))
    last = max(max(t.planned, t.ran) for t in trials)
    ran, planned = _still_there([t.ran for t in trials], last), _still_there([t.planned for t in trials], last)
    figure = go.Figure()
    figure.add_trace(_stairs(*planned, "planned", GREY, "dash"))
    figure.add_trace(_stairs(*ran, "run", BLUE, "solid"))
    figure.update_xaxes(title_text="epoch", rangemode="tozero")
    figure.update_yaxes(title_text="trials that trained so far", rangemode="tozero")
    spent, asked = sum(t.ran for t in trials), sum(t.planned for t in trials)
    words = (
        f"How many trials trained up to each epoch: {spent} epochs were run of the {asked} that all trials had run to "
        f"their ends ({spent / asked:.0%}). The area under a line is its number of epochs."
    )
    return Figured(key, title, words, finished(figure, 240))


def hours_spent(data: SearchData) -> Figured:
    """Time spent and saved, by how trials ended."""
    key, title = "hours", "Time spent and saved"
    total = sum(t.seconds for t in data.trials)
    if not total:
        return Figured(key, title, nothing_yet(data, "no trial has finished an epoch"))
    states = [state for state in STATES if data.of(state)]
    saved = {state: sum(_saved(t) for t in data.of(state)) for state in states}
    unit, seconds = device_unit(data, total + sum(saved.values()))
    spent = [sum(t.seconds for t in data.of(state)) / seconds for state in states]
    names = [counted(data.of(state), state) for state in states]
    figure = go.Figure()
    figure.add_trace(_bar(names, spent, "spent", unit, {"color": [STATE_COLOURS[s] for s in states], "opacity": 0.85}))
    hollow = {"color": "rgba(0,0,0,0)", "line": {"color": GREY, "width": 1.5}}
    figure.add_trace(_bar(names, [saved[s] / seconds for s in states], "saved", unit, hollow))
    figure.update_xaxes(title_text=f"{unit}, all trials")
    figure.update_yaxes(autorange="reversed", showgrid=False)
    words = (
        f"Filled: {total / seconds:.3g} {unit} of training and validation spent. "
        f"Hollow: about {sum(saved.values()) / seconds:.3g} saved by "
        "ending before the last planned epoch, at a rung or by a trial's own patience; estimated from each trial's own "
        "seconds per epoch. A failed trial saves nothing."
    )
    table = tuple(
        {"trials": name, f"spent, {unit}": own, f"saved, {unit}": saved[state] / seconds}
        for name, own, state in zip(names, spent, states, strict=True)
    )
    drawn = finished(figure, 50 + 40 * len(states), legend=False, barmode="stack")
    return Figured(key, title, words, drawn, table)


def _trade(data: SearchData, key: str, axis: str, words: str, cost: Callable[[SearchTrial], float | None]) -> Figured:
    """Score against one cost, the front drawn."""
    key, title = f"pareto-{key}", f"Score against {axis.split(',')[0]}"
    known = [t for t in data.ranked if cost(t) is not None]
    whole = [t for t in known if t.state == "complete"]
    if data.ranked and not known:
        return Figured(key, title, f"Nothing to draw: {axis.split(',')[0]} was not recorded for any trial.")
    if not whole:
        return Figured(key, title, nothing_yet(data, "no trial ran to its end"))
    costs = {t.trial: float(cost(t) or 0.0) for t in known}
    fronts = fronts_of([(t.score or 0.0, costs[t.trial]) for t in whole])
    front = sorted((t for t, at in zip(whole, fronts, strict=True) if at == 0), key=lambda t: costs[t.trial])
    on_front = {t.trial for t in front}
    shown = sampled([t for t in known if t.trial not in on_front], _DOTS)
    figure = go.Figure()
    for state in ("going", "stopped", "complete"):
        if dots := [t for t in shown if t.state == state]:
            figure.add_trace(_beaten(dots, costs, state))
    figure.add_trace(_front(front, costs))
    wide = min(costs.values()) > 0 and max(costs.values()) > _WIDE * min(costs.values())
    figure.update_xaxes(title_text=axis, **({"type": "log", "dtick": 1} if wide else {}))
    figure.update_yaxes(title_text=data.score_title)
    text = (
        f"{words} The line joins the trials that no other beats in both, of the {len(whole)} that ran to their end; "
        f"the others could still have risen and are on no front.{left_out(len(shown) + len(front), len(known))}"
    )
    table = tuple({"trial": t.number, data.score_title: t.score, axis: costs[t.trial]} for t in front)
    return Figured(key, title, text, finished(figure, 260), table)


def _beaten(trials: Sequence[SearchTrial], costs: dict[str, float], state: State) -> go.Scatter:
    whole = state == "complete"
    return go.Scatter(
        x=shortened(costs[t.trial] for t in trials),
        y=shortened(t.score or 0.0 for t in trials),
        customdata=[t.trial if t.number is None else t.number for t in trials],
        name="complete, beaten" if whole else state,
        mode="markers",
        marker={"color": GREY, "size": 7 if whole else 4, "symbol": "circle" if whole else "circle-open"},
        opacity=0.8 if whole else 0.6,
        hovertemplate=f"trial %{{customdata}}, {STATES[state]}<br>%{{y:.4f}} at %{{x}}<extra></extra>",
    )


def _front(trials: Sequence[SearchTrial], costs: dict[str, float]) -> go.Scatter:
    return go.Scatter(
        x=shortened(costs[t.trial] for t in trials),
        y=shortened(t.score or 0.0 for t in trials),
        name="not beaten",
        mode="lines+markers",
        line={"color": VERMILION, "width": 1.5, "shape": "hv"},
        marker={"size": 9, "symbol": "diamond"},
        hovertext=[about(t) for t in trials],
        hovertemplate="%{hovertext}<br>cost %{x}<extra></extra>",
    )


def _still_there(epochs: Sequence[int], last: int) -> tuple[list[int], list[int]]:
    """The epochs at which a number of trials falls, with the trials that trained up to there."""
    counts = len(epochs) - np.searchsorted(np.sort(epochs), np.arange(1, last + 2))
    falls = [0, *(np.flatnonzero(np.diff(counts)) + 1).tolist()]
    return falls, counts[falls].tolist()


def _stairs(x: list[int], y: list[int], name: str, colour: str, dash: str) -> go.Scatter:
    """`y` trials train from epoch `x` on, up to the next one."""
    return go.Scatter(
        x=x,
        y=y,
        name=name,
        mode="lines",
        line={"shape": "hv", "color": colour, "width": 2, "dash": dash},
        fill="tozeroy" if dash == "solid" else "none",
        hovertemplate=f"beyond epoch %{{x}}: %{{y}} trials<extra>{name}</extra>",
    )


def _saved(trial: SearchTrial) -> float:
    """Seconds that the epochs which it did not run would have taken."""
    if trial.state not in ("complete", "stopped") or not trial.ran:
        return 0.0
    return max(0, trial.planned - trial.ran) * trial.seconds / trial.ran


def _bar(names: list[str], values: list[float], name: str, unit: str, marker: dict[str, object]) -> go.Bar:
    return go.Bar(
        orientation="h",
        y=names,
        x=shortened(values),
        name=name,
        marker=marker,
        hovertemplate=f"%{{y}}<br>{name}: %{{x}} {unit}<extra></extra>",
    )
