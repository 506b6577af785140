"""`harness search`, `train` and `export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.app import app, console, exit_study, parse_duration
from harness.cli.options import Address, Concurrency, Cpus, Data, Executor, Gpus, Measure, Name, Resume, Set
from harness.cli.outcome import failures_shown, print_failures, print_unreached
from harness.config.space import Strategy
from harness.errors import ConfigError, StudyError


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
    time_budget: Annotated[str | None, typer.Option(help="Start no epoch after this long: 90s, 30m, 2h.")] = None,
    disk_gb: Annotated[float | None, typer.Option(min=0, help="Room for weights; the best trials keep theirs.")] = None,
    gpus_per_trial: Gpus = 0.0,
    cpus_per_trial: Cpus = 1.0,
    concurrency: Concurrency = None,
    measure: Measure = False,
    address: Address = None,
    executor: Executor = "ray",
    seed: Annotated[int, typer.Option(min=0, help="Seed of proposals and trainings.")] = 0,
    resume: Resume = False,
) -> None:
    """Search a space: a model proposes, and only the best go on at each rung."""
    from harness.cli import inputs
    from harness.report import search_summary
    from harness.run import Resources, run_search

    if resume and name is None:
        raise StudyError("--resume needs --name: which study is to go on?")
    what = inputs.read_space(
        space, experiment, data, set_ or [], trials=trials, max_epochs=max_epochs, strategy=strategy
    )
    budget = parse_duration(time_budget)
    folder = inputs.study_folder(name, (space or inputs.DEFAULT_SPACE).stem)
    resources = Resources(executor, gpus_per_trial, cpus_per_trial, concurrency, address)
    with failures_shown(folder):
        study = run_search(
            folder,
            what,
            resources,
            console,
            seed=seed,
            time_budget=budget,
            disk_budget=None if disk_gb is None else disk_gb * 1e9,
            measured=measure,
            resume=resume,
        )
    console.print(search_summary(folder))
    print_failures(folder)
    print_unreached(folder)
    left = len(study.record.ended) < what.search.trials and not study.out_of_time()
    exit_study(folder.name, interrupted=left, rows=study.record.ended.values())


@app.command()
def train(
    experiment: Annotated[Path, typer.Argument(help="Experiment file, e.g. from `harness export`.")],
    data: Data = None,
    set_: Set = None,
    name: Name = None,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings, with seeds 0, 1, ...")] = 3,
    gpus_per_trial: Gpus = 0.0,
    cpus_per_trial: Cpus = 1.0,
    concurrency: Concurrency = None,
    measure: Measure = False,
    address: Address = None,
    executor: Executor = "ray",
    resume: Resume = False,
) -> None:
    """Train one Experiment to its end, several seeds, and give mean and interval."""
    from harness.cli import inputs
    from harness.report import replicates_summary
    from harness.run import Resources, run_replicates

    what = inputs.read_experiment(experiment, data, set_ or [])
    folder = inputs.study_folder(name or f"train-{experiment.stem}", "train")
    resources = Resources(executor, gpus_per_trial, cpus_per_trial, concurrency, address)
    with failures_shown(folder):
        study = run_replicates(folder, what, range(seeds), resources, console, measured=measure, resume=resume)
    console.print(replicates_summary(folder))
    print_failures(folder)
    exit_study(folder.name, interrupted=len(study.record.ended) < seeds, rows=study.record.ended.values())


@app.command()
def export(
    study: Annotated[str, typer.Argument(help="Study name or folder.")],
    rank: Annotated[int, typer.Option(min=1, help="1: the best.")] = 1,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File; none: standard output.")] = None,
) -> None:
    """Write the best Experiment of a search as a complete file."""
    from harness.search import read_export
    from harness.store import find_study, write_text

    text = read_export(find_study(study), rank)
    if output is None:
        typer.echo(text, nl=False)
        return
    if not output.parent.is_dir():
        raise ConfigError(f"-o {output}: the folder {output.parent} does not exist; make it first")
    write_text(output, text)
    console.print(f"rank {rank} of {study} → {output}", highlight=False, soft_wrap=True)
