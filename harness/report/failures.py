"""Failed trials by cause, so that a cause is mended once and not trial by trial."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from harness.config import printable
from harness.store import Record, StudyFolder, TrialRow

#: trials shown of each cause
_SHOWN = 5
_NUMBER = re.compile(r"(?<![\w.])[+-]?(\d[\d.,]*(e[+-]?\d+)?|nan|inf)(?![\w])")


def failures(folder: StudyFolder) -> RenderableType | None:
    """Every cause with its trials and the values that they had; none where no trial failed.

    Under a cause stand the values that all its trials have and that no trial that went well has.
    """
    rows = list(Record(folder).ended.values())
    causes = by_cause([row for row in rows if row.outcome == "failed"])
    if not causes:
        return None
    well = [row for row in rows if row.outcome != "failed"]
    failed = len(rows) - len(well)
    parts = [part for trials in causes for part in _cause(trials, well)]
    return Group(
        Text(), Text(f"{failed} of {len(rows)} trials failed", "bold red"), *parts, _advice(folder, causes[0][0])
    )


def by_cause(failed: Sequence[TrialRow]) -> list[list[TrialRow]]:
    """Failed trials of one cause together, the commonest first.

    A cause is the first line of an error; lines that differ in the trial's id and in numbers alone (bytes, steps,
    learning rates) are one cause.
    """
    causes: dict[str, list[TrialRow]] = {}
    for row in failed:
        causes.setdefault(_NUMBER.sub("#", _first_line(row)), []).append(row)
    return sorted(causes.values(), key=len, reverse=True)


def only_theirs(trials: Sequence[TrialRow], others: Sequence[TrialRow]) -> dict[str, Any]:
    """The picked values that all of some trials, two or more, have and that none of the others has."""
    if len(trials) < 2:
        return {}
    shared = {k: v for k, v in trials[0].picked.items() if all(_has(row, k, v) for row in trials)}
    return {k: v for k, v in shared.items() if not any(_has(row, k, v) for row in others)}


def _has(row: TrialRow, name: str, value: Any) -> bool:
    return name in row.picked and row.picked[name] == value


def _first_line(row: TrialRow) -> str:
    lines = (row.error or "").strip().splitlines()
    return lines[0].replace(f"trial {row.trial}: ", "") if lines else "no cause was recorded"


def _cause(trials: list[TrialRow], well: Sequence[TrialRow]) -> list[RenderableType]:
    table = Table.grid(padding=(0, 2))
    for row in trials[:_SHOWN]:
        table.add_row(
            f"trial {row.number}", f"seed {row.seed}", f"{row.epochs} epochs", Text(_values(row.picked), "dim")
        )
    parts: list[RenderableType] = [
        Text.assemble((f"{len(trials)} × ", "bold"), (printable(_first_line(trials[0])), "red"))
    ]
    parts.append(Padding.indent(table, 4))
    if len(trials) > _SHOWN:
        parts.append(Padding.indent(Text(f"and {len(trials) - _SHOWN} more", "dim"), 4))
    if found := only_theirs(trials, well):
        text = f"all of them, and no trial that went well: {_values(found)}"
        parts.append(Padding.indent(Text(text, "yellow"), 4))
    return parts


def _values(picked: dict[str, Any]) -> str:
    words = (f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}" for name, value in picked.items())
    return printable("  ".join(words))


def _advice(folder: StudyFolder, first: TrialRow) -> Text:
    return Text(
        f"traceback  {folder.run(first.trial).path}/error.txt\nalone      harness rerun {folder.path} {first.number}"
    )
