"""The section of a search's page on its confirmation: the best trials, trained again from fresh seeds."""

from __future__ import annotations

import math

from harness.report.confirmation import (
    COLUMNS,
    cautions,
    curse,
    interval,
    rows,
    title,
    winner_changed,
)
from harness.report.html.figured import Figured
from harness.report.html.sections import Block, Fact, Facts, Rows, Section, Words, numeric
from harness.report.interactive import figure_of
from harness.report.plot_shapes import MUTED, Panel, Point, RowChart, Series
from harness.report.plot_style import AMBER, BLUE
from harness.search.confirmation import LEVEL, Confirmation, Retrained, read_confirmation
from harness.stats import Estimate
from harness.store import StudyFolder


def confirmation_section(folder: StudyFolder) -> Section | None:
    """The best trials of a search as fresh seeds rank them; none where they were not trained again.

    Raises:
        StudyError: the confirmation is one of another search.
    """
    confirmation = read_confirmation(folder)
    if confirmation is None:
        return None
    lead = winner_changed(confirmation) or "No fresh training has a score yet."
    blocks: list[Block] = [Words(lead, "lead")]
    if confirmation.first.optimism:
        blocks += [Words(curse(confirmation)), _facts(confirmation)]
    blocks += [Words(text, "warning") for text in cautions(confirmation)]
    table = tuple(rows(confirmation))
    caption = f"{title(confirmation)[0].upper()}{title(confirmation)[1:]}"
    blocks.append(Rows(caption, COLUMNS, table, _notes(confirmation), numeric(table), (0,) * bool(table)))
    if confirmation.confirmed:
        blocks.append(_figure(confirmation))
    return Section("confirmation", "Confirmation with fresh seeds", tuple(blocks))


def _facts(confirmation: Confirmation) -> Facts:
    best, first = confirmation.confirmed[0], confirmation.first
    count = len(confirmation.confirmed)
    facts = [
        Fact(f"fresh mean of trial {best.row.number}", f"{best.mean.point:.4f}", (_interval(best.mean),)),
        Fact(f"too high in the search, trial {first.row.number}", *_gap(first.optimism)),
    ]
    if confirmation.optimism_of_all and count > 1:
        facts.append(Fact(f"too high in the search, mean of {count}", *_gap(confirmation.optimism_of_all)))
    return Facts(tuple(facts))


def _gap(gap: Estimate) -> tuple[str, tuple[str, ...]]:
    return f"{gap.point:+.4f}".replace("-", "−"), (_interval(gap),)


def _interval(estimate: Estimate) -> str:
    if math.isnan(estimate.low):
        return "too few seeds for an interval"
    return f"{100 * LEVEL:g} % interval {interval(estimate)}"


def _notes(confirmation: Confirmation) -> tuple[str, ...]:
    notes = [
        "None of these seeds had a say in the choice, so their mean is an estimate of what the values reach. The first "
        "of the table is again the best of a few; that its rank goes by the lower end keeps that fault small."
    ]
    if any(trial.was_stopped for trial in confirmation.trials):
        notes.append(
            "A trial that the search stopped early is trained to its end here; how far its search score was too high "
            "is taken after as many epochs."
        )
    return tuple(notes)


def _figure(confirmation: Confirmation) -> Figured:
    """A row for each trial: the search's score, the fresh ones, their mean with its interval."""
    names = {_name(trial): trial for trial in confirmation.confirmed}
    fresh = [Point(name, score) for name, trial in names.items() for score in trial.scores.values()]
    means = [Point(name, *trial.mean) for name, trial in names.items()]
    searched = [Point(name, trial.row.score) for name, trial in names.items()]
    series = (
        Series("one fresh seed", tuple(fresh), MUTED, "speck"),
        Series(f"mean of fresh seeds, {100 * LEVEL:g} % interval", tuple(means), BLUE, "dot"),
        Series("score in the search", tuple(searched), AMBER, "diamond"),
    )
    text = "Score in the search and with fresh seeds"
    chart = RowChart("confirmation", text, "score (0–1)", tuple(names), (Panel("", series),))
    words = "Where the diamond stands right of its dots, the search's score was too high."
    if any(trial.was_stopped for trial in names.values()):
        words += " Of a trial that was stopped early it is the score after fewer epochs, and says nothing of that."
    return Figured("figure-confirmation", text, words, figure_of(chart))


def _name(trial: Retrained) -> str:
    return f"trial {trial.row.number}" + (", stopped early" if trial.was_stopped else "")
