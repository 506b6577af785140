"""`harness ablate` and `harness report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
from typer.core import TyperGroup

from harness.cli.app import app, console, exit_study, shown_on
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
from harness.cli.outcome import failures_shown, print_failures, print_page
from harness.cli.pictures import draw_pictures


class _StudyOrCommand(TyperGroup):
    """`harness report STUDY` is `harness report study STUDY`, and `harness report` is `harness report study`."""

    def parse_args(self, ctx, args):  # noqa: ANN001, ANN201
        return super().parse_args(ctx, args or ["study"])

    def resolve_command(self, ctx, args):  # noqa: ANN001, ANN201  (typer's own types are private)
        return super().resolve_command(ctx, args if args[0] in self.commands else ["study", *args])


report = typer.Typer(
    cls=_StudyOrCommand,
    subcommand_metavar="[STUDY | COMMAND [ARGS]...]",
    help="Write the page of a study, or of the newest: `harness report [STUDY]`. Or rebuild tables and plots.",
)
app.add_typer(report, name="report")


@app.command()
def ablate(
    ablation: Annotated[Path | None, typer.Argument(help="Ablation file, e.g. ablations/ignitia.yaml.")] = None,
    path: Annotated[
        str | None, typer.Option(metavar="STUDY", help="In place of a file: from the default to this search's best.")
    ] = None,
    rank: Annotated[int | None, typer.Option(min=1, help="With --path, to which of the best; none: 1.")] = None,
    as_searched: Annotated[
        bool, typer.Option("--as-searched", help="With --path, rank as the search did, whatever fresh seeds found.")
    ] = False,
    scale: Annotated[str, typer.Option(help="Which of the file's scales: smoke, small, full.")] = "full",
    data: Data = None,
    set_: Set = None,
    name: Name = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Replicates of every arm; none: the scale's.")] = None,
    race: Annotated[
        int | None, typer.Option(min=2, help="Further seeds, up to this many, for arms that are not resolved.")
    ] = None,
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
    """Train every arm of an ablation with the same seeds and say what its factors are worth."""
    from harness.cli import inputs
    from harness.report.ablation import ablation_summary
    from harness.run import Resources, run_ablation

    found, stem = inputs.read_ablation(ablation, path, rank, as_searched)
    what = inputs.change_ablation(found, scale, data, set_ or [])
    # a path is known by its search alone, so that --resume finds it
    folder = inputs.study_folder(name or (stem if path else None), f"{stem}-{scale}")
    resources = Resources(executor, gpus_per_trial, cpus_per_trial, concurrency, address, upload)
    with failures_shown(folder):
        study = run_ablation(
            folder,
            what,
            scale,
            seeds,
            resources,
            shown_on(quiet),
            race=race,
            compute_hours=compute_hours,
            measured=measure,
            resume=resume,
            trackers=tracker or (),
        )
    if study.interrupted:
        # who stops it wants it to end: tables and plots are made when it goes on, or by `harness report ablation`
        print_page(folder)
        exit_study(folder.name, interrupted=True, rows=())
    draw_pictures(folder)
    records = _write_reports(folder)
    console.print(ablation_summary(records))
    print_failures(folder)
    console.print(f"tables and plots → {folder.path}/report", highlight=False, soft_wrap=True)
    print_page(folder, upload)
    exit_study(folder.name, interrupted=False, rows=study.record.ended.values())


@report.command("study")
def report_study(
    study: Annotated[str | None, typer.Argument(help="Study name or folder; none: the newest of the results.")] = None,
) -> None:
    """Write the page of a search, a training or an ablation, one HTML file that opens without a network."""
    from harness.cli.inputs import chosen_study

    print_page(chosen_study(study))


@report.command("ablation")
def report_ablation(study: Annotated[str, typer.Argument(help="Study name or folder.")]) -> None:
    """Rebuild an ablation's tables and plots from its folder; needs no GPU."""
    from harness.report.ablation import ablation_summary
    from harness.store import find_study

    folder = find_study(study)
    records = _write_reports(folder)
    console.print(ablation_summary(records))
    console.print(f"tables and plots → {folder.path}/report", highlight=False, soft_wrap=True)


@report.command()
def published(
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder to write into; none: published-tables of the results.")
    ] = None,
    reproduced: Annotated[
        str | None, typer.Option(help="An ablation of one system's phases, set beside the published scores.")
    ] = None,
    system: Annotated[
        Literal["ignitia", "codecrunch", "desertmind"], typer.Option(help="Whose phases --reproduced holds.")
    ] = "ignitia",
) -> None:
    """Rebuild the three published systems' tables, with the places where their documents contradict their logs."""
    from harness.cli.inputs import PUBLISHED
    from harness.report.published import published_tables, write_published
    from harness.report.records import read_ablation
    from harness.report.reproduced import reproduced_scores
    from harness.store import find_study, results_folder

    output = output or results_folder() / "published-tables"
    scores = None
    if reproduced is not None:
        known = {(row[0], row[1]) for row in published_tables(PUBLISHED)["headlines"].rows}
        scores = reproduced_scores(read_ablation(find_study(reproduced)), system, known)
    written = write_published(PUBLISHED, output, scores)
    console.print(f"{len(written)} files → {output} (start at index.md)", highlight=False, soft_wrap=True)


def _write_reports(folder):  # noqa: ANN001, ANN202
    from harness.report.ablation import write_ablation_tables
    from harness.report.plots import write_plots
    from harness.report.records import read_ablation
    from harness.report.tiles import write_tile_sheet

    records = read_ablation(folder)
    write_ablation_tables(records, folder.path / "report")
    write_plots(records, folder.path / "report")
    write_tile_sheet(records, folder.path / "report")
    return records
