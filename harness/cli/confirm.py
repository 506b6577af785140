"""`harness confirm`: the best trials of a search again, from fresh seeds."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from harness.cli.app import app, console, exit_study, print_resume, shown_on
from harness.cli.options import ComputeHours, Measure, Quiet, Tracker
from harness.cli.outcome import failures_shown, print_failures, print_page
from harness.cli.pictures import draw_pictures
from harness.config import CONFIRMED_TRIALS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.ablate import Replicates
    from harness.run import Resources
    from harness.store import StudyFolder

_AS_SEARCHED = "none: as in the search."


@app.command()
def confirm(
    study: Annotated[str, typer.Argument(help="Name or folder of a search.")],
    seeds: Annotated[
        int | None, typer.Option(min=1, help="Trainings of each trial; none: 3, or as many as it began with.")
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="How many of the best; with --resume: those it began with.")] = (
        CONFIRMED_TRIALS
    ),
    gpus_per_trial: Annotated[float | None, typer.Option(min=0, help=f"GPUs of one trial; {_AS_SEARCHED}")] = None,
    cpus_per_trial: Annotated[
        float | None, typer.Option(min=0.1, help=f"CPU cores of one trial; {_AS_SEARCHED}")
    ] = None,
    concurrency: Annotated[int | None, typer.Option(min=1, help=f"Trials at once; {_AS_SEARCHED}")] = None,
    compute_hours: ComputeHours = None,
    measure: Measure = False,
    address: Annotated[str | None, typer.Option(help=f"Ray cluster to join; {_AS_SEARCHED}")] = None,
    executor: Annotated[
        Literal["ray", "inprocess"] | None, typer.Option(help=f"Where trials run; {_AS_SEARCHED}")
    ] = None,
    tracker: Tracker = None,
    quiet: Quiet = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the last confirmation of this search.")] = False,
) -> None:
    """Train the best trials of a search again with seeds that none had, and rank them by what they reach then."""
    from harness.run.confirm import searched_with
    from harness.store import find_study

    folder = find_study(study)
    given = {
        "executor": executor, "gpus_per_trial": gpus_per_trial, "cpus_per_trial": cpus_per_trial,
        "concurrency": concurrency, "address": address,
    }  # fmt: skip
    resources = replace(searched_with(folder), **{name: value for name, value in given.items() if value is not None})
    run = confirm_search(
        folder,
        resources,
        seeds,
        top,
        resume=resume,
        quiet=quiet,
        compute_hours=compute_hours,
        measured=measure,
        trackers=tracker or (),
    )
    if not run.interrupted:
        draw_pictures(folder)
    print_page(folder)
    exit_study(None, interrupted=run.interrupted and bool(run.waiting), rows=run.record.ended.values())


def confirm_search(
    folder: StudyFolder,
    resources: Resources,
    seeds: int | None,
    top: int,
    *,
    resume: bool,
    quiet: bool,
    resumed_as: str | None = None,
    compute_hours: float | None = None,
    measured: bool = False,
    trackers: Sequence[str] = (),
) -> Replicates:
    """Run a confirmation and show what it found; `resumed_as`: the --name by which the command goes on, if it has one.

    Raises:
        HarnessError: bad input, or all trainings failed.
    """
    from harness.report.confirmation import confirmation_summary
    from harness.run.confirm import run_confirmation
    from harness.search.confirmation import read_one, write_confirmed
    from harness.store import StudyFolder

    with failures_shown(folder, lambda: print_resume(resumed_as)):
        run = run_confirmation(
            folder,
            resources,
            shown_on(quiet),
            seeds=seeds,
            top=top,
            compute_hours=compute_hours,
            measured=measured,
            resume=resume,
            trackers=trackers,
        )
    ran = StudyFolder(run.folder.path)
    write_confirmed(folder, ran)
    console.print(confirmation_summary(read_one(folder, ran)))
    print_failures(ran)
    return run
