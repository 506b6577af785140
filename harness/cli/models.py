"""`harness evaluate`, `predict` and `describe`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.progress import track

from harness.cli.app import app, console, print_json
from harness.cli.options import Data, Set
from harness.errors import StudyError

if TYPE_CHECKING:
    from harness.store import RunFolder, StudyFolder

Run = Annotated[str, typer.Argument(help="Run folder, or a study (its best run).")]
Scales = Annotated[str | None, typer.Option("--tta", help="Views: scales and flip, e.g. 0.75,1,1.25,flip.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def evaluate(
    run: Run,
    data: Data = None,
    split: Annotated[Literal["train", "val", "test"], typer.Option(help="Which frames.")] = "val",
    tta: Scales = None,
    json: AsJson = False,
) -> None:
    """Score a trained run: per class and under every convention."""
    from harness.cli import inputs
    from harness.engine.evaluate import evaluate as score
    from harness.engine.evaluate import open_eval_frames
    from harness.engine.inference import views
    from harness.engine.trained import open_run
    from harness.report import score_tables, scores_as_values
    from harness.run.worker import pick_device
    from harness.store import write_json

    folder = find_run(run)
    device = pick_device()
    trained = open_run(folder, device)
    experiment = inputs.change_experiment(trained.experiment, data, _tta_overrides(tta))
    looks = views(experiment, experiment.evaluation.tta)
    frames = open_eval_frames(experiment, split)
    result = score(trained.model, frames, experiment, trained.taxonomy, device, looks=looks)
    values = scores_as_values(result.names, result.matrices, trained.taxonomy.names)
    values |= {"run": str(folder.path), "split": split, "views": [look._asdict() for look in looks]}
    write_json(folder.path / f"evaluation-{split}.json", values)
    if json:
        print_json(values)
    else:
        title = f"{folder.path.name} · {split} · {len(result.names)} frames · {len(looks)} view(s)"
        console.print(score_tables(values, title))


@app.command()
def predict(
    run: Run,
    images: Annotated[list[Path], typer.Argument(help="Image files, or folders of them.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write into.")],
    tta: Scales = None,
) -> None:
    """Write raw-id masks, colour masks, overlays and side-by-side pictures."""
    from harness.cli import inputs
    from harness.data.loose_files import frames_of_images
    from harness.engine.inference import views
    from harness.engine.predict import write_predictions
    from harness.engine.trained import open_run
    from harness.run.worker import pick_device

    folder = find_run(run)
    frames = frames_of_images(images)
    trained = open_run(folder, pick_device())
    experiment = inputs.change_experiment(trained.experiment, None, _tta_overrides(tta))
    looks = views(experiment, experiment.evaluation.tta)
    written = write_predictions(trained, frames, output, looks)
    for _ in track(written, "predicting", total=len(frames), console=console):
        pass
    console.print(f"{len(frames)} frames → {output}/raw, colour, overlay, side_by_side", highlight=False)


@app.command()
def describe(
    experiment: Annotated[Path | None, typer.Argument(help="Experiment file; none: the default.")] = None,
    data: Data = None,
    set_: Set = None,
    json: AsJson = False,
) -> None:
    """Show what an Experiment builds, without training it."""
    from harness.cli import inputs
    from harness.engine.describe import describe as build
    from harness.report import describe_tables

    what = inputs.read_experiment(experiment, data, set_ or [])
    values = build(what)
    if json:
        print_json(values)
    else:
        console.print(describe_tables(values))


def find_run(name: str) -> RunFolder:
    """A run by its folder, or the best run of a study by its name or folder.

    Raises:
        StudyError: there is neither.
    """
    from harness.store import RunFolder, StudyFolder, results_folder

    path = Path(name)
    if (path / "experiment.yaml").exists():
        return RunFolder(path)
    for study in (path, results_folder() / name):
        if (study / "study.yaml").exists():
            return _best_run(StudyFolder(study))
    raise StudyError(
        f"run '{name}' does not exist: give a run folder (results/STUDY/runs/TRIAL, it holds experiment.yaml) "
        "or the name of a study"
    )


def _best_run(study: StudyFolder) -> RunFolder:
    from harness.store import Record

    ranking = Record(study).ranking()
    if not ranking:
        raise StudyError(f"study '{study.name}' has no trial with a score yet; let it go on first")
    return study.run(ranking[0].trial)


def _tta_overrides(tta: str | None) -> list[str]:
    if tta is None:
        return []
    words = [word.strip() for word in tta.split(",")]
    scales = [word for word in words if word != "flip"] or ["1.0"]
    return [f"evaluation.tta.scales=[{', '.join(scales)}]", f"evaluation.tta.flip={str('flip' in words).lower()}"]
