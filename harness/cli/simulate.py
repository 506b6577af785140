"""`harness simulate`: a search in virtual time, before one in real time."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.app import app, console
from harness.errors import ConfigError


@app.command()
def simulate(
    what: Annotated[
        str | None, typer.Argument(metavar="STUDY|SPACE", help="Study to replay, or space file; none: the black box.")
    ] = None,
    strategy: Annotated[
        list[str] | None, typer.Option(help="May be repeated; none: promote, asha, random_asha.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, max=1000, help="Virtual workers.")] = 4,
    seeds: Annotated[int, typer.Option(min=1, help="Simulated studies of each kind.")] = 10,
    trials: Annotated[int | None, typer.Option(min=1, help="Trials of the study; none: the space's own.")] = None,
    factor: Annotated[list[int] | None, typer.Option(min=2, help="Reduction factor; may be repeated.")] = None,
    grace: Annotated[list[int] | None, typer.Option(min=1, help="Grace period, epochs; may be repeated.")] = None,
    on_disk: Annotated[bool, typer.Option("--on-disk", help="Write journals and SQLite, and time the calls.")] = False,
    table: Annotated[bool, typer.Option("--table", help="All strategies on the black box, for --write.")] = False,
    processes: Annotated[int, typer.Option(min=1, help="Processes for --table.")] = 1,
    write: Annotated[Path | None, typer.Option(help="Markdown file of --table; a .csv is put beside it.")] = None,
) -> None:
    """Predict how many epochs a search needs and which strategy finds most, on learning curves instead of trainings."""
    from harness.simulate import compare, curves_over, options_of, print_comparison, write_table

    if table:
        if write is None or what is not None:
            raise ConfigError("--table compares all strategies on the black box: give --write FILE.md, and no space")
        write_table(write, seeds, processes, console)
        return
    if write is not None:
        raise ConfigError(f"--write {write} goes with --table; leave it out, or give --table")
    curves = curves_over(what, seeds)
    options = options_of(curves[0].space, strategy, factor, grace, trials)
    print_comparison(compare(curves, options, workers, on_disk), curves, console, on_disk)
