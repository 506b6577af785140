"""The command line's frame: the Typer app, one way to print and one way to fail.

Commands import what they need when they run: `harness --help` must load neither torch nor ray.
"""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.text import Text

from harness.config import visible
from harness.errors import HarnessError

app = typer.Typer(
    name="harness",
    help="Hyperparameter search and ablation studies for semantic segmentation.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
# names and values come out of files: "[red]" and ":bomb:" in them are words
console = Console(markup=False, emoji=False)
errors = Console(stderr=True, markup=False, emoji=False)

INTERRUPTED = 130
SOME_FAILED = 3
_TRACEBACK = "_with_traceback"
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def shown_on(quiet: bool) -> Console:
    """Where a study shows its course: nowhere if `--quiet`."""
    return Console(quiet=True) if quiet else console


def main() -> None:
    """Run the command line; a bad input is one message and exit code 2."""
    try:
        app()
    except HarnessError as error:
        if getattr(error, _TRACEBACK, False):
            raise
        errors.print(Text.assemble(("error:", "bold red"), f" {visible(str(error))}"), soft_wrap=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def with_traceback(error: HarnessError) -> HarnessError:
    """Mark an error that `main` lets through, for a debugger to stop at."""
    setattr(error, _TRACEBACK, True)
    return error


def exit_study(name: str | None, *, interrupted: bool, rows: Iterable[Any]) -> None:
    """End a command that ran a study with the exit code that its trials earned."""
    if interrupted:
        print_resume(name)
        raise typer.Exit(INTERRUPTED)
    if any(row.outcome == "failed" for row in rows):
        raise typer.Exit(SOME_FAILED)


def print_resume(name: str | None) -> None:
    """The command that goes on with the study of this one; `name`: as --name gives it, where the command has that."""
    command = resume_command(sys.argv, name)
    console.print(f"interrupted; go on with: {command}", highlight=False, markup=False, soft_wrap=True)


def resume_command(words: list[str], name: str | None) -> str:
    """A command that started a study as the one that goes on with it, for a shell."""
    program = "harness" if Path(words[0]).name != "__main__.py" else "python -m harness"
    kept, given = [], iter(words[1:])
    for word in given:
        if word == "--name":
            next(given)
        elif word != "--resume" and not word.startswith("--name="):
            kept.append(word)
    named = [] if name is None else ["--name", name]
    return f"{program} {shlex.join([*kept, *named, '--resume'])}"


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
    parts = re.findall(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)([smhd])", text)
    if not parts or "".join(n + u for n, u in parts) != text:
        raise typer.BadParameter(f"'{text}' is no duration; write 90s, 30m, 2h, 1d or 1h30m")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)
