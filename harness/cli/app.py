"""The command line's frame: the Typer app, one way to print and one way to fail.

Commands import what they need when they run: `harness --help` must load neither torch nor ray.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape

from harness.errors import HarnessError

app = typer.Typer(
    name="harness",
    help="Hyperparameter search and ablation studies for semantic segmentation.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
console = Console()
errors = Console(stderr=True)

INTERRUPTED = 130
SOME_FAILED = 3
_TRACEBACK = "_with_traceback"
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def main() -> None:
    """Run the command line; a bad input is one message and exit code 2."""
    try:
        app()
    except HarnessError as error:
        if getattr(error, _TRACEBACK, False):
            raise
        errors.print(f"[bold red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def with_traceback(error: HarnessError) -> HarnessError:
    """Mark an error that `main` lets through, for a debugger to stop at."""
    setattr(error, _TRACEBACK, True)
    return error


def exit_study(name: str, *, interrupted: bool, rows: Iterable[Any]) -> None:
    """End a command that ran a study with the exit code that its trials earned."""
    if interrupted:
        console.print(f"interrupted; go on with the same command and [bold]--name {name} --resume[/]")
        raise typer.Exit(INTERRUPTED)
    if any(row.outcome == "failed" for row in rows):
        raise typer.Exit(SOME_FAILED)


def print_json(value: Any) -> None:
    """Plain JSON on standard output, nan as null, for other programs."""
    sys.stdout.write(json.dumps(_without_nan(value), indent=2) + "\n")


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(inner) for inner in value]
    return None if isinstance(value, float) and value != value else value


def parse_duration(text: str | None) -> float | None:
    """`90s`, `30m`, `2h`, `1d`, `1h30m` as seconds."""
    if text is None:
        return None
    parts = re.findall(r"(\d+(?:\.\d+)?)([smhd])", text)
    if not parts or "".join(n + u for n, u in parts) != text:
        raise typer.BadParameter(f"'{text}' is no duration; write 90s, 30m, 2h, 1d or 1h30m")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)
