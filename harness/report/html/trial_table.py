"""Every trial of a search in one table, for its reader to sort and to filter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.config import Space
from harness.config.space import ChoiceParameter
from harness.report.html.sections import Cell, Section, SortedTable, Words, shown
from harness.store import TrialRow

_FIRST = ("trial", "outcome", "score", "best epoch", "epochs")
_ORDER = {"complete": 0, "stopped": 1, "infeasible": 2, "failed": 3}
_MISSING = Cell("–")


def trial_section(rows: Sequence[TrialRow], space: Space) -> Section:
    """The trials in the order of the ranking, failed ones last, a column for each parameter."""
    ranked = sorted(rows, key=lambda r: (_ORDER[r.outcome], -_or(r.score, -1.0), r.number))
    seeds = len({row.seed for row in rows}) > 1
    # whichever gives the longest trial a number of a few digits
    unit, seconds = ("minutes", 60) if max(row.seconds for row in rows) > 600 else ("seconds", 1)
    table = SortedTable(
        key="trial-table",
        caption="In the order of the ranking: trials that ran to their end, stopped early, infeasible, failed",
        columns=(*_FIRST, unit, *_headings(space), *(["seed"] if seeds else [])),
        rows=tuple(_cells(row, space, seconds, seeds) for row in ranked),
        hints=_hints(rows, space),
        descending=("score",),
    )
    words = Words(
        "A stopped trial shows its best score so far: it stands beside scores of longer trainings, so compare it at "
        "its own number of epochs only. A dash: the trial had no such parameter, or no epoch ended.",
        "muted",
    )
    return Section("trials", "All trials", (words, table))


def _headings(space: Space) -> list[str]:
    """The parameters' names; of one that is called like a column of every table, its field: the filter goes by both."""
    taken = {name.replace(" ", "_") for name in (*_FIRST, "minutes", "seconds", "seed")}
    return [
        parameter.field if name.lower().replace(" ", "_") in taken else name
        for name, parameter in space.parameters.items()
    ]


def _cells(row: TrialRow, space: Space, unit: int, seeds: bool) -> tuple[Cell, ...]:
    own = (
        Cell(str(row.number), row.number),
        Cell(row.outcome),
        _MISSING if row.score is None else Cell(f"{row.score:.4f}", row.score),
        _cell(row.best_epoch),
        _cell(row.epochs),
        Cell(f"{row.seconds / unit:.1f}", round(row.seconds / unit, 3)),
    )
    values = tuple(_cell(row.picked.get(name)) for name in space.parameters)
    return (*own, *values, *([_cell(row.seed)] if seeds else []))


def _cell(value: Any) -> Cell:
    if value is None:
        return _MISSING
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return Cell(shown(value), value if number else None)


def _hints(rows: Sequence[TrialRow], space: Space) -> tuple[str, ...]:
    """Two filters that find something here: a choice's label, a number's upper half."""
    found: dict[str, str] = {}
    for heading, (name, parameter) in zip(_headings(space), space.parameters.items(), strict=True):
        values = [row.picked[name] for row in rows if name in row.picked]
        if " " in name or not values:
            continue
        if isinstance(parameter, ChoiceParameter):
            found.setdefault("choice", f"{heading}={shown(values[-1])}")
        else:
            found.setdefault("number", f"{heading}>{shown(_middle(values))}")
    return tuple(found.values())


def _middle(values: Sequence[Any]) -> Any:
    return sorted(values)[len(values) // 2]


def _or(value: float | None, other: float) -> float:
    return other if value is None else value


def values_text(picked: Mapping[str, Any]) -> str:
    """name=value of each."""
    return ", ".join(f"{name}={shown(value)}" for name, value in picked.items())
