"""`harness search` and `train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.app import app, console, exit_study, parse_duration, shown_on
from harness.cli.confirm import confirm_search
from harness.cli.options import (
    Address,
    ComputeHours,
    Concurrency,
    Cpus,
    Data,
    Executor,
    Gpus,
    Measure,
    Name,
    Quiet,
    Resume,
    Set,
    Tracker,
    Upload,
)
from harness.cli.outcome import (
    failures_shown,
    print_failures,
    print_next,
    print_next_of_training,
    print_page,
    print_stopped_higher,
    print_unreached,
)
from harness.cli.pictures import draw_pictures
from harness.config import CONFIRMED_TRIALS, visible
from harness.config.space import Strategy
from harness.errors import StudyError


@app.command()
def search(
    space: Annotated[Path | None, typer.Argument(help="What may vary; none: search_spaces/default.yaml.")] = None,
    experiment: Annotated[Path | None, typer.Option(help="Default Experiment in place of the space's own.")] = None,
    data: Data = None,
    set_: Set = None,
    name: Name = None,
    trials: Annotated[int | None, typer.Option(min=1, help="Trials in all; none: the space's own.")] = None,
    strategy: Annotated[Strategy | None, typer.Option(help="How to search; none: the space's own.")] = None,
    max_epochs: Annotated[int | None, typer.Option(min=1, help="Epochs of a trial that is not stopped.")] = None,
    enqueue: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE[:ARM]", help="Try this Experiment, or arm of an ablation, first; may be repeated."),
    ] = None,
    warm_start: Annotated[
        list[str] | None,
        typer.Option(metavar="STUDY[:K]", help="Try the best K (3) of an earlier search first; may be repeated."),
    ] = None,
    time_budget: Annotated[str | None, typer.Option(help="All epochs end within this time: 90s, 30m, 2h.")] = None,
    compute_hours: ComputeHours = None,
    confirm: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="SEEDS",
            help=f"Then train the best {CONFIRMED_TRIALS} again with this many fresh seeds each; budgets are for the "
            "search alone.",
        ),
    ] = None,
    disk_gb: Annotated[
        float | None, typer.Option(min=0, help="Room for weights and checkpoints; the best trials keep theirs.")
    ] = None,
    gpus_per_trial: Gpus = None,
    cpus_per_trial: Cpus = 1.0,
    concurrency: Concurrency = None,
    measure: Measure = False,
    address: Address = None,
    executor: Executor = "ray",
    seed: Annotated[int, typer.Option(min=0, help="Seed of proposals and trainings.")] = 0,
    upload: Upload = None,
    tracker: Tracker = None,
    quiet: Quiet = False,
    resume: Resume = False,
) -> None:
    """Search a space: a model proposes, and only the best go on at each rung."""
    from harness.cli import inputs, recipes
    from harness.report import search_summary
    from harness.run import Resources, run_search
    from harness.run.confirm import goes_on

    if resume and name is None:
        raise StudyError("--resume needs --name: which study is to go on?")
    what = inputs.read_space(
        space, experiment, data, set_ or [], trials=trials, max_epochs=max_epochs, strategy=strategy
    )
    budget = parse_duration(time_budget)
    folder = inputs.study_folder(name, (space or inputs.DEFAULT_SPACE).stem)
    what, notes = recipes.with_recipes(what, enqueue or (), warm_start or (), folder if resume else None)
    for note in notes:
        shown_on(quiet).print(visible(note), highlight=False, markup=False, soft_wrap=True)
    resources = Resources(executor, gpus_per_trial, cpus_per_trial, concurrency, address, upload)
    with failures_shown(folder):
        study = run_search(
            folder,
            what,
            resources,
            shown_on(quiet),
            seed=seed,
            time_budget=budget,
            disk_budget=None if disk_gb is None else disk_gb * 1e9,
            compute_hours=compute_hours,
            measured=measure,
            resume=resume,
            trackers=tracker or (),
        )
    console.print(search_summary(folder))
    print_stopped_higher(folder)
    if confirm is None:
        print_next(folder)
    print_failures(folder)
    print_unreached(folder)
    left = len(study.record.ended) < what.search.trials or confirm is not None
    rows = list(study.record.ended.values())
    if confirm is not None and not study.interrupted and study.record.ranking():
        run = confirm_search(
            folder,
            resources,
            confirm,
            CONFIRMED_TRIALS,
            resume=goes_on(folder, CONFIRMED_TRIALS),
            quiet=quiet,
            resumed_as=folder.name,
            measured=measure,
            trackers=tracker or (),
        )
        study.interrupted |= run.interrupted
        rows += run.record.ended.values()
    if not study.interrupted:
        draw_pictures(folder)
    print_page(folder, upload)
    exit_study(folder.name, interrupted=study.interrupted and left, rows=rows)


@app.command()
def train(
    experiment: Annotated[Path, typer.Argument(help="Experiment file, e.g. from `harness export`.")],
    data: Data = None,
    set_: Set = None,
    name: Name = None,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings, with seeds 0, 1, ...")] = 3,
    compute_hours: ComputeHours = None,
    gpus_per_trial: Gpus = None,
    cpus_per_trial: Cpus = 1.0,
    concurrency: Concurrency = None,
    measure: Measure = False,
    address: Address = None,
    executor: Executor = "ray",
    upload: Upload = None,
    tracker: Tracker = None,
    quiet: Quiet = False,
    resume: Resume = False,
) -> None:
    """Train one Experiment to its end, several seeds, and give mean and interval."""
    from harness.cli import inputs
    from harness.report import replicates_summary
    from harness.run import Resources, run_replicates

    what = inputs.read_experiment(experiment, data, set_ or [])
    folder = inputs.study_folder(name or f"train-{experiment.stem}", "train")
    resources = Resources(executor, gpus_per_trial, cpus_per_trial, concurrency, address, upload)
    with failures_shown(folder):
        study = run_replicates(
            folder,
            what,
            range(seeds),
            resources,
            shown_on(quiet),
            compute_hours=compute_hours,
            measured=measure,
            resume=resume,
            trackers=tracker or (),
        )
    console.print(replicates_summary(folder))
    print_failures(folder)
    if not study.interrupted:
        print_next_of_training(folder)
        draw_pictures(folder)
    print_page(folder, upload)
    exit_study(folder.name, interrupted=study.interrupted and bool(study.waiting), rows=study.record.ended.values())
