"""`harness doctor`: what this machine has and lacks."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.table import Table
from rich.text import Text

from harness.cli.app import app, console, errors, print_json
from harness.cli.inputs import DEFAULT_SPACE
from harness.config import printable

if TYPE_CHECKING:
    from harness.doctor import Check

_MARKS = {"ok": ("✓", "green"), "warn": ("!", "yellow"), "bad": ("✗", "red")}
#: where a screen knows neither
_PLAIN = {"✓": "+", "✗": "x"}
#: shown on terminals alone
_WAITING = "asking libraries, each in a process of its own"


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
    spaces = space or sorted(DEFAULT_SPACE.parent.glob("*.yaml"))
    found = examine(spaces, data, taxonomy)
    checks = _all(found) if json else _shown(found, _names_width(spaces))
    faults = sum(check.state == "bad" for check in checks)
    if json:
        print_json({"ok": not faults, "checks": [check._asdict() for check in checks]})
    else:
        hints = sum(check.state == "warn" for check in checks)
        end = f"{faults} fault(s), {hints} hint(s)" if faults or hints else "all is well"
        console.print(Text(end, "bold red" if faults else "bold green"))
    if faults:
        raise typer.Exit(2)


def _all(checks: Iterable[Check]) -> list[Check]:
    with errors.status(_WAITING):
        return list(checks)


def _shown(checks: Iterable[Check], width: int) -> list[Check]:
    """Print each check as soon as it is known; on a terminal a last line says that more are to come."""
    unicode = console.encoding.lower().startswith("utf")
    # on the same console: what is printed then goes above it
    waiting = console.status(_WAITING) if console.is_terminal else nullcontext()
    shown = []
    with waiting:
        for check in checks:
            console.print(_line(check, width, unicode))
            shown.append(check)
    return shown


def _line(check: Check, width: int, unicode: bool) -> Table:
    """The line of a check, its remedy below it; `width`: of all names, so that the lines stand in columns."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, min_width=width)
    table.add_column(overflow="fold")
    mark, colour = _MARKS[check.state]
    found = Text(printable(check.found))
    if check.remedy:
        remedy = f"\n{'→' if unicode else '->'} {printable(check.remedy)}"
        found.append(remedy, "dim" if check.state == "warn" else "bold")
    table.add_row(Text(mark if unicode else _PLAIN.get(mark, mark), colour), Text(check.name, "bold"), found)
    return table


def _names_width(spaces: Iterable[Path]) -> int:
    """Of the longest name of a check, in letters."""
    return max(len(name) for name in ("shared memory", *(f"weights {path.stem}" for path in spaces)))
