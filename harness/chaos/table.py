"""What came of it, on the screen."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from harness.chaos.run import Report


def report_table(report: Report) -> Table:
    """Faults by kind, and what they changed."""
    table = Table("", "", title=f"chaos, seed {report.seed}", show_header=False)
    for name, count in sorted(report.faults.items()):
        table.add_row(name, str(count))
    for name, why in sorted(report.left_out.items()):
        table.add_row(name, f"not injected ({why})")
    table.add_section()
    table.add_row("faults injected", str(report.faults.total()))
    table.add_row("searches that came to their end", str(len(report.verdicts)))
    table.add_row("trials finished", str(sum(one.finished for one in report.verdicts)))
    for words, counts in (
        ("epochs lost", [one.lost for one in report.verdicts]),
        ("epochs doubled", [one.doubled for one in report.verdicts]),
        ("epochs changed", [one.changed for one in report.verdicts]),
    ):
        table.add_row(words, _coloured(str(sum(counts)), not any(counts)))
    equal = all(one.best_equal for one in report.verdicts)
    table.add_row("best equal", _coloured("yes" if equal else "no", equal))
    return table


def _coloured(text: str, good: bool) -> Text:
    return Text(text, "green" if good else "bold red")
