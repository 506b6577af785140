"""What the best trials are good at: IoU by class."""

from __future__ import annotations

import plotly.graph_objects as go

from harness.report.html.figured import Figured
from harness.report.html.figures_shared import finished, nothing_yet, short_number
from harness.report.html.search_data import SearchData, SearchTrial
from harness.report.plot_style import hover_safe, short

_BEST, _ROW = 5, 28
# translucent, so that the page's own text colour is readable on it, light or dark
_SCALE = ((0.0, "rgba(0,114,178,0.04)"), (1.0, "rgba(0,114,178,0.75)"))


def class_figure(data: SearchData) -> Figured:
    """IoU of every class of the best trials, at each one's best epoch."""
    key, title = "classes", "IoU by class of the best trials"
    best = [t for t in data.ranked if t.state != "going" and t.best][:_BEST]
    if not best:
        return Figured(key, title, nothing_yet(data, "no trial has ended with a score"))
    classes = list(dict.fromkeys(name for t in best if t.best for name in t.best.iou))
    if not classes:
        return Figured(key, title, "Nothing to draw: the rows hold no IoU by class.")
    values = [[_iou(t, name) for t in best] for name in classes]
    texts = [[_text(t, name) for t in best] for name in classes]
    trials = [t.name for t in best]
    figure = go.Figure(_cells(values, texts, trials, classes))
    figure.add_trace(_numbers(texts))
    figure.update_xaxes(tickvals=list(range(len(best))), ticktext=_two_lines(trials), showgrid=False, side="top")
    figure.update_yaxes(
        tickvals=list(range(len(classes))),
        ticktext=[short(n, 18) for n in classes],
        showgrid=False,
        autorange="reversed",
    )
    words = (
        f"Validation IoU of each class at the best epoch of the best {len(best)} trials, the best on the left. These "
        "trials were chosen by their mean, so a class may still be better in another trial."
        f"{_absent_words(values, texts)}"
    )
    return Figured(
        key, title, words, finished(figure, _ROW * len(classes) + 30, legend=False), _table(trials, classes, texts)
    )


def _iou(trial: SearchTrial, name: str) -> float | None:
    value = trial.best.iou.get(name) if trial.best else None
    return None if value is None else short_number(value)


def _text(trial: SearchTrial, name: str) -> str:
    if trial.best is None or name not in trial.best.iou:
        return "no such class"
    value = trial.best.iou[name]
    return "absent" if value is None else f"{value:.3f}"


def _absent_words(values: list[list[float | None]], texts: list[list[str]]) -> str:
    absent = any("absent" in row for row in texts)
    other = any("no such class" in row for row in texts)
    return (
        " Absent: no pixel of the class in the validation truth, so it counts for nothing." * absent
        + " No such class: the trial's taxonomy lacks it." * other
    )


def _cells(
    values: list[list[float | None]], texts: list[list[str]], trials: list[str], classes: list[str]
) -> go.Heatmap:
    hover = [
        [hover_safe(f"{trial}, {name}: {text}") for trial, text in zip(trials, row, strict=True)]
        for name, row in zip(classes, texts, strict=True)
    ]
    return go.Heatmap(
        z=values,
        zmin=0,
        zmax=1,
        colorscale=_SCALE,
        showscale=False,
        xgap=2,
        ygap=2,
        hovertext=hover,
        hoverinfo="text",
        hoverongaps=True,
    )


def _numbers(texts: list[list[str]]) -> go.Scatter:
    """The numbers as text of their own, which takes the page's colour."""
    places = [(x, y) for y, row in enumerate(texts) for x in range(len(row))]
    return go.Scatter(
        x=[x for x, _ in places],
        y=[y for _, y in places],
        text=["–" if texts[y][x] == "no such class" else texts[y][x] for x, y in places],
        mode="text",
        textfont={"size": 11},
        hoverinfo="skip",
        showlegend=False,
    )


def _two_lines(trials: list[str]) -> list[str]:
    return [name.replace(" ", "<br>", 1) for name in trials]


def _table(trials: list[str], classes: list[str], texts: list[list[str]]) -> tuple[dict[str, object], ...]:
    return tuple(
        {"class": name} | dict(zip(trials, row, strict=True)) for name, row in zip(classes, texts, strict=True)
    )
