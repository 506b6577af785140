"""`harness doctor`: what this machine has and lacks."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.table import Table
from rich.text import Text

from harness.cli.app import app, console, errors, print_json
from harness.cli.inputs import DEFAULT_SPACE

_MARKS = {"ok": ("✓", "green"), "warn": ("!", "yellow"), "bad": ("✗", "red")}
#: where a screen knows neither
_PLAIN = {"✓": "+", "✗": "x"}


@app.command()
def doctor(
    data: Annotated[Path | None, typer.Option(help="Dataset folder to look through as well.")] = None,
    taxonomy: Annotated[
        Literal["falcon10", "ignitia10", "falcon7"], typer.Option(help="What the ids of --data mean.")
    ] = "falcon10",
    space: Annotated[
        list[Path] | None, typer.Option(help="Space whose weights are looked for; may be repeated; none: all here.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Look at Python, libraries, GPUs, Ray, weights, disk and memory; nothing is changed, nothing fetched.

    Exit code 0: nothing stands in the way of a study. 2: something marked ✗ does.
    """
    from harness.doctor import examine

    if hasattr(sys.stdout, "reconfigure"):
        # a screen without ✓ must not end what would have said so
        sys.stdout.reconfigure(errors="replace")
    with errors.status("asking libraries, each in a process of its own"):
        checks = examine(space or sorted(DEFAULT_SPACE.parent.glob("*.yaml")), data, taxonomy)
    faults = sum(check.state == "bad" for check in checks)
    if json:
        print_json({"ok": not faults, "checks": [check._asdict() for check in checks]})
    else:
        console.print(_lines(checks, unicode=console.encoding.lower().startswith("utf")))
        hints = sum(check.state == "warn" for check in checks)
        end = f"{faults} fault(s), {hints} hint(s)" if faults or hints else "all is well"
        console.print(Text(end, "bold red" if faults else "bold green"))
    if faults:
        raise typer.Exit(2)


def _lines(checks: list, unicode: bool) -> Table:
    """A line for each check, its remedy below it."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for check in checks:
        mark, colour = _MARKS[check.state]
        found = Text(check.found)
        if check.remedy:
            found.append(f"\n{'→' if unicode else '->'} {check.remedy}", "dim" if check.state == "warn" else "bold")
        table.add_row(Text(mark if unicode else _PLAIN.get(mark, mark), colour), Text(check.name, "bold"), found)
    return table
