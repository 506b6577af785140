"""The table of a benchmark: on screen, as Markdown and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from rich.console import Group
from rich.table import Table
from rich.text import Text

from harness.bench.rows import Goal, Measured, Row
from harness.store import write_text

COLUMNS = ("what", "ours", "theirs", "measured", "interval", "goal", "reached", "n", "note")


def on_screen(title: str, rows: Sequence[Row]) -> Group:
    """The rows as a rich table, with the notes numbered below."""
    table = Table(title=title, title_justify="left")
    for column in COLUMNS[:-1]:
        table.add_column(column)
    for number, row in enumerate(rows, 1):
        what, *others, _ = cells(row)
        table.add_row(f"{number} {what}", *others)
    notes = [Text(f"{number} {row.note}", "dim") for number, row in enumerate(rows, 1) if row.note]
    return Group(table, *notes)


def cells(row: Row) -> tuple[str, ...]:
    """The text of a row's cells, in the order of COLUMNS."""
    return (
        row.what,
        row.ours,
        row.theirs,
        _number(row.value.point, row.unit),
        _interval(row.value, row.unit),
        _goal(row.goal, row.unit),
        _reached(row),
        str(row.pairs),
        row.note,
    )


def write_sheet(folder: Path, name: str, title: str, rows: Sequence[Row], about: dict[str, str]) -> list[Path]:
    """Write `name`.md and `name`.csv into a folder, made if it is not there; returns the two paths."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = {".md": _markdown(title, rows, about), ".csv": _csv(rows, about)}
    paths = [folder / f"{name}{ending}" for ending in texts]
    for path, text in zip(paths, texts.values(), strict=True):
        write_text(path, text)
    return paths


def _markdown(title: str, rows: Sequence[Row], about: dict[str, str]) -> str:
    lines = [_pipes(COLUMNS), _pipes(["---"] * len(COLUMNS)), *(_pipes(cells(row)) for row in rows)]
    notes = [f"- {name}: {value}" for name, value in about.items()]
    return "\n".join([f"# {title}", "", *lines, "", *notes]) + "\n"


def _csv(rows: Sequence[Row], about: dict[str, str]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*COLUMNS, *about])
    writer.writerows([*cells(row), *about.values()] for row in rows)
    return text.getvalue()


def _pipes(texts: Sequence[str]) -> str:
    return f"| {' | '.join(text.replace('|', chr(92) + '|') for text in texts)} |"


def _number(value: float, unit: str) -> str:
    return f"{value:.3g} {'×' if unit == 'x' else unit}"


def _interval(value: Measured, unit: str) -> str:
    if value.low != value.low:
        return "–"
    return f"{value.low:.3g} to {_number(value.high, unit)} ({100 * value.level:.0f} %)"


def _goal(goal: Goal | None, unit: str) -> str:
    return "–" if goal is None else f"{'≥' if goal.at_least else '≤'} {_number(goal.limit, unit)}"


def _reached(row: Row) -> str:
    if row.goal is None or row.goal.reached(row.value.point):
        return row.reached
    missed = f"{row.reached}, missed by {100 * row.goal.missed_by(row.value.point):.0f} %"
    return f"{missed}: {row.why}" if row.why else missed
