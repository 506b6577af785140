"""The options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

Data = Annotated[Path | None, typer.Option(help="Dataset folder in the official layout; none: synthetic desert.")]
Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="Override one field; may be repeated.")
]
Name = Annotated[str | None, typer.Option(help="Study name: the folder under results/.")]
Gpus = Annotated[
    float | None,
    typer.Option(min=0, help="GPUs of one trial; 0.5: two share one; 0: train on the CPU; none: 1 where there is one."),
]
Cpus = Annotated[float, typer.Option(min=0.1, help="CPU cores of one trial.")]
Concurrency = Annotated[int | None, typer.Option(min=1, help="Trials at once; none: as many as fit.")]
Address = Annotated[str | None, typer.Option(help="Ray cluster to join, e.g. auto; none: this machine alone.")]
Executor = Annotated[Literal["ray", "inprocess"], typer.Option(help="Where trials run.")]
ComputeHours = Annotated[
    float | None,
    typer.Option(
        min=0,
        help="Start no epoch once all epochs so far, resumed ones too, took this many GPU-hours (seconds x "
        "--gpus-per-trial); on CPUs: core-hours (x --cpus-per-trial).",
    ),
]
Measure = Annotated[
    bool,
    typer.Option("--measure", help="Train a step of each model first; each trial gets the share of a GPU it needs."),
]
Quiet = Annotated[bool, typer.Option("--quiet", help="Show nothing but the final summary and errors.")]
Tracker = Annotated[
    list[str] | None,
    typer.Option(metavar="tensorboard|mlflow|wandb", help="Send every epoch there too; may be repeated."),
]
Upload = Annotated[
    str | None,
    typer.Option(metavar="URI", help="Copy records, report and the best weights there: s3://…, gs://…, file:///…"),
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the study of this name.")]
