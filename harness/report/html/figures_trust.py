"""How far the results can be trusted: what matters by two methods, and whether stopping early was safe."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go
from scipy.stats import kendalltau, rankdata, spearmanr

from harness.report.html.figured import Figured
from harness.report.html.figures_shared import finished, left_out, nothing_yet, sampled, shortened
from harness.report.html.importance import (
    LEAST_TRIALS,
    METHODS,
    RANKS_APART,
    Importance,
    agreement,
    importances,
)
from harness.report.html.search_data import SearchData, SearchTrial
from harness.report.plot_style import AMBER, BLUE, GREY, hover_safe, listed, ordered_colours, plot_safe, short

_COLOURS = dict(zip(METHODS, (BLUE, AMBER), strict=True))
_ROW, _APART = 40, 0.2
_DOTS = 400
#: survivors below which a rank correlation is not shown, and below which it is called uncertain
_LEAST, _FEW = 3, 10
_LOW = 0.5


class RungTrust(NamedTuple):
    """How the order at a rung agrees with the final order, among the `trials` that ran to their end.

    `spearman` and `kendall` (tau-b) are nan where either side has no order. `best_was`: rank at the rung, from 1, of
    the trial that was best in the end.
    """

    rung: int
    trials: int
    spearman: float
    kendall: float
    best_was: int


def importance_figure(data: SearchData) -> Figured:
    """How much each parameter matters, by two methods, budget by budget."""
    key, title = "importance", "Which parameters matter"
    found = importances(data)
    if not found:
        return Figured(key, title, nothing_yet(data, f"{LEAST_TRIALS} trials with scores at one same epoch are needed"))
    figure = go.Figure()
    for i, method in enumerate(METHODS):
        offset = (_APART, -_APART)[i]
        figure.add_trace(_bars(found, i, method, offset))
        figure.add_trace(_budget_dots(found, i, method, offset))
        figure.add_trace(_chance_ticks(found, i, method, offset))
    figure.update_xaxes(title_text="share of the effects (0–1)", rangemode="tozero")
    figure.update_yaxes(
        tickvals=[-i for i in range(len(found))],
        ticktext=[plot_safe(short(one.parameter, 18)) for one in found],
        range=[0.5 - len(found), 0.5],
        showgrid=False,
    )
    words = (
        "Each parameter's share by fANOVA (what explains the scores) and by PED-ANOVA (what sets the best trials "
        "apart): dots are rungs, the larger the later, each over all trials that came there, stopped or not, by their "
        f"scores at that epoch, and bars their mean, weighted by trials ({_budgets_in_words(found)}). A bar below its "
        "dotted line is no longer than shuffled scores give, joint effects are not shown, and what decided early "
        f"looks small at late rungs, where only chosen trials are left.{_subsets_in_words(found)}"
    )
    height = _ROW * len(found) + 20
    return Figured(
        key, title, words, finished(figure, height, barmode="overlay"), _importance_table(found), _disagreement(found)
    )


def stopping_figure(data: SearchData) -> Figured:
    """The score at each rung against the final score."""
    key, title = "stopping", "Was stopping early safe?"
    if not data.rungs:
        return Figured(key, title, "Every trial of this search ran to its end, so nothing was stopped.")
    trust = rung_trust(data)
    if not trust:
        return Figured(key, title, nothing_yet(data, f"{_LEAST} trials that ran to their end past a rung are needed"))
    survivors = list(_survivors(data))
    shown = sampled(survivors, _DOTS)
    figure = go.Figure()
    for one, colour in zip(trust, ordered_colours(len(trust)), strict=True):
        figure.add_trace(_rung_dots(one, shown, colour))
    figure.update_xaxes(title_text=f"{data.score_title} at the rung")
    figure.update_yaxes(title_text=f"final {data.score_title}")
    words = (
        "Each rung's score against the best score in the end, with the rank correlations of the two (ρ Spearman's, τ "
        f"Kendall's): near 1, the order at the rung was the final one. {_best_in_words(trust)} Only survivors can be "
        "compared; what the stopped trials would have reached is not known, and among all trials the correlation is "
        f"likely higher.{left_out(len(shown), len(survivors))}"
    )
    return Figured(key, title, words, finished(figure, 320), _trust_table(trust), _trust_warnings(trust))


def rung_trust(data: SearchData) -> list[RungTrust]:
    """Every rung that at least three of the trials that ran to their end passed."""
    found = []
    for rung in data.rungs:
        pairs = [(at, t.score) for t in _survivors(data) if (at := t.score_at(rung)) is not None]
        if len(pairs) >= _LEAST:
            found.append(_trust(rung, np.array(pairs, dtype=np.float64)))
    return found


def _trust(rung: int, pairs: np.ndarray) -> RungTrust:
    early, final = pairs.T
    ordered = np.ptp(early) > 0 and np.ptp(final) > 0
    rho = float(spearmanr(early, final).statistic) if ordered else math.nan
    tau = float(kendalltau(early, final).statistic) if ordered else math.nan
    best_was = int(rankdata(-early, method="min")[np.argmax(final)])
    return RungTrust(rung, len(pairs), rho, tau, best_was)


def _survivors(data: SearchData) -> Sequence[SearchTrial]:
    return [t for t in data.ranked if t.state == "complete"]


def _rung_dots(one: RungTrust, trials: Sequence[SearchTrial], colour: str) -> go.Scatter:
    there = [t for t in trials if t.score_at(one.rung) is not None]
    return go.Scatter(
        x=shortened(t.score_at(one.rung) or 0.0 for t in there),
        y=shortened(t.score or 0.0 for t in there),
        customdata=[t.number for t in there],
        name=f"epoch {one.rung}: ρ {_coefficient(one.spearman)}, τ {_coefficient(one.kendall)}, n {one.trials}",
        mode="markers",
        marker={"color": colour, "size": 7, "opacity": 0.8},
        hovertemplate=f"trial %{{customdata}}<br>epoch {one.rung}: %{{x:.4f}}<br>final: %{{y:.4f}}<extra></extra>",
    )


def _best_in_words(trust: Sequence[RungTrust]) -> str:
    places = listed([f"number {one.best_was} of {one.trials} at epoch {one.rung}" for one in trust])
    return f"The final best was {places}."


def _trust_table(trust: Sequence[RungTrust]) -> tuple[dict[str, object], ...]:
    return tuple(
        {
            "rung": f"epoch {one.rung}",
            "trials": one.trials,
            "Spearman's ρ": _coefficient(one.spearman),
            "Kendall's τ": _coefficient(one.kendall),
            "final best was number": one.best_was,
        }
        for one in trust
    )


def _trust_warnings(trust: Sequence[RungTrust]) -> tuple[str, ...]:
    most = max(one.trials for one in trust)
    few = [f"Only {most} trials ran to their end: these correlations are uncertain."] if most < _FEW else []
    low = [one for one in trust if one.spearman < _LOW and one.trials >= _FEW]
    loose = [
        f"The order at epoch {one.rung} says little about the final one among survivors (ρ "
        f"{_coefficient(one.spearman)}): a larger `grace_epochs`, or a smaller `reduction_factor`, stops less rashly."
        for one in low[-1:]
    ]
    return (*few, *loose)


def _coefficient(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.2f}".replace("-", "−")


def _bars(found: Sequence[Importance], method: int, name: str, offset: float) -> go.Bar:
    return go.Bar(
        orientation="h",
        x=shortened(one.share[method] for one in found),
        y=[offset - i for i in range(len(found))],
        width=0.36,
        name=name,
        marker={"color": _COLOURS[name], "opacity": 0.75},
        hovertext=[_share_text(one, method, name) for one in found],
        hoverinfo="text",
    )


def _share_text(one: Importance, method: int, name: str) -> str:
    lines = [f"{one.parameter}, {name}: {one.share[method]:.3f} (chance {one.chance[method]:.3f})"]
    lines += [f"{at.budget}, {at.trials} trials: {at.share[method]:.3f}" for at in one.budgets]
    return "<br>".join(map(hover_safe, lines))


def _budget_dots(found: Sequence[Importance], method: int, name: str, offset: float) -> go.Scatter:
    """Each budget's own share, on the bar; a later budget is a larger dot."""
    order = list(dict.fromkeys(at.budget for one in found for at in one.budgets))
    dots = [(i, at) for i, one in enumerate(found) for at in one.budgets]
    return go.Scatter(
        x=shortened(at.share[method] for _, at in dots),
        y=[offset - i for i, _ in dots],
        mode="markers",
        marker={
            "color": GREY,
            "size": [5 + 2 * order.index(at.budget) for _, at in dots],
            "line": {"width": 1.5, "color": _COLOURS[name]},
        },
        showlegend=False,
        hovertext=[hover_safe(f"{name} at {at.budget}, {at.trials} trials: {at.share[method]:.3f}") for _, at in dots],
        hoverinfo="text",
    )


def _chance_ticks(found: Sequence[Importance], method: int, name: str, offset: float) -> go.Scatter:
    x = [v for one in found for v in (*shortened([one.chance[method]] * 2), None)]
    y = [v for i in range(len(found)) for v in (offset - i - 0.18, offset - i + 0.18, None)]
    return go.Scatter(
        x=x,
        y=y,
        mode="lines",
        line={"color": GREY, "width": 2, "dash": "dot"},
        name="shuffled scores",
        showlegend=method == 0,
        hoverinfo="skip",
    )


def _budgets_in_words(found: Sequence[Importance]) -> str:
    most: dict[str, int] = {}
    for one in found:
        for at in one.budgets:
            most[at.budget] = max(at.trials, most.get(at.budget, 0))
    return listed([f"{count} trials at {name}" for name, count in most.items()])


def _subsets_in_words(found: Sequence[Importance]) -> str:
    parts = [f"{one.parameter} (where {one.subset})" for one in found if one.subset]
    return f" Judged only among the trials that have them: {listed(parts)}." if parts else ""


def _importance_table(found: Sequence[Importance]) -> tuple[dict[str, object], ...]:
    ranks = agreement(found).ranks
    rows = []
    for one in found:
        row: dict[str, object] = {"parameter": one.parameter, "among": one.subset or "all trials"}
        for i, method in enumerate(METHODS):
            row |= {method: f"{one.share[i]:.3f}", f"{method} chance": f"{one.chance[i]:.3f}"}
            row |= {f"{method} rank": ranks[one.parameter][i]}
            row |= {f"{method}, {at.budget} (n {at.trials})": f"{at.share[i]:.3f}" for at in one.budgets}
        rows.append(row)
    return tuple(rows)


def _disagreement(found: Sequence[Importance]) -> tuple[str, ...]:
    both = agreement(found)
    matter = {one.parameter for one in found if one.above_chance}
    if not matter:
        return ("By neither method does any parameter matter more than it would with shuffled scores.",)
    apart = {name: ranks for name, ranks in both.apart.items() if name in matter}
    if not apart:
        return ()
    named = listed([f"{name} (fANOVA: {a}, PED-ANOVA: {b})" for name, (a, b) in apart.items()])
    return (
        f"The two methods rank some parameters {RANKS_APART} places or more apart: {named}; their rank correlation "
        f"over all parameters is {_coefficient(both.correlation)}. Believe neither rank before a study of its own.",
    )
