"""`harness evaluate`, `predict` and `describe`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.progress import track
from rich.text import Text

from harness.cli.app import app, console, errors, print_json
from harness.cli.options import Data, Set
from harness.errors import StudyError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.data import Frame
    from harness.engine.evaluate import Evaluation
    from harness.engine.inference import View
    from harness.engine.trained import Trained
    from harness.engine.video import Video
    from harness.store import RunFolder, StudyFolder

Run = Annotated[str, typer.Argument(help="Run folder, or a study (its best run).")]
Scales = Annotated[str | None, typer.Option("--tta", help="Views: scales and flip, e.g. 0.75,1,1.25,flip.")]
Windows = Annotated[
    float | None,
    typer.Option(
        min=0,
        max=0.9,
        help="Cut large images into windows of the input size that overlap by this share, e.g. 0.25; none: resize.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def evaluate(
    run: Run,
    data: Data = None,
    split: Annotated[Literal["train", "val", "test"], typer.Option(help="Which frames.")] = "val",
    tta: Scales = None,
    worst: Annotated[
        Path | None, typer.Option(help="Folder for pictures of the worst frames; none: worst-SPLIT in the run.")
    ] = None,
    worst_count: Annotated[int, typer.Option(min=0, max=99, help="How many of them; 0: none.")] = 8,
    json: AsJson = False,
) -> None:
    """Score a run: per class, which class was taken for which, under every convention; and show its worst frames.

    Worst are the frames of lowest mIoU of their own. With --json pictures are drawn only where --worst names a folder.
    """
    from harness.cli import inputs
    from harness.engine.evaluate import evaluate as score
    from harness.engine.evaluate import open_eval_frames
    from harness.engine.inference import views
    from harness.engine.trained import open_run
    from harness.report import score_tables, scores_as_values
    from harness.report.confusion import confusion_table
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
    matrix = result.matrices.sum(axis=0)
    # rows: truth; columns: prediction, the last one "none of the classes"
    values |= {"confusion": matrix.tolist()}
    write_json(folder.path / f"evaluation-{split}.json", values)
    title = f"{folder.path.name} · {split} · {len(result.names)} frames · {len(looks)} view(s)"
    if json:
        print_json(values)
    else:
        console.print(score_tables(values, title))
        console.print()
        console.print(confusion_table(matrix, trained.taxonomy.names, console.width))
    if worst_count and (worst is not None or not json):
        out = worst or folder.path / f"worst-{split}"
        _show_worst(trained._replace(experiment=experiment), result, split, out, worst_count, looks, title)


@app.command()
def predict(
    run: Run,
    images: Annotated[list[Path], typer.Argument(help="Images, folders of them, or videos (mp4, avi, mov, mkv…).")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write into.")],
    tta: Scales = None,
    windows: Windows = None,
    masks: Annotated[bool, typer.Option("--masks", help="Of a video, also a raw-id mask of every frame.")] = False,
) -> None:
    """Write raw-id masks, colour masks, overlays and side-by-side pictures; of a video, one with overlays."""
    from harness.cli import inputs
    from harness.data.loose_files import frames_of_images
    from harness.engine.inference import views
    from harness.engine.predict import write_predictions
    from harness.engine.trained import open_run
    from harness.engine.video import VIDEO_SUFFIXES, open_videos
    from harness.run.worker import pick_device

    folder = find_run(run)
    videos = [path for path in images if path.suffix.lower() in VIDEO_SUFFIXES and not path.is_dir()]
    films = open_videos(videos)
    frames = frames_of_images([path for path in images if path not in videos])
    trained = open_run(folder, pick_device())
    experiment = inputs.change_experiment(trained.experiment, None, _tta_overrides(tta))
    looks = views(experiment, experiment.evaluation.tta)
    if windows is not None:
        _check_sizes(trained, frames, films)
    if frames:
        written = write_predictions(trained, frames, output, looks, windows)
        for _ in track(written, "predicting", total=len(frames), console=console):
            pass
        _say(f"{len(frames)} frames → {output}/raw, colour, overlay, side_by_side")
    for film in films:
        _predict_film(trained, film, output, looks, windows, masks)


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


def _check_sizes(trained: Trained, frames: Sequence[Frame], films: Sequence[Video]) -> None:
    """Refuse what is smaller than a window before the first is predicted, which can take hours."""
    from harness.data import image_size
    from harness.engine.windows import check_size

    window = trained.experiment.data.input_size
    for frame in frames:
        check_size(image_size(frame.image), window, f"{frame.image}: an image")
    for film in films:
        check_size(film.size, window, f"{film.path}: a video")


def _predict_film(
    trained: Trained, film: Video, output: Path, looks: tuple[View, ...], windows: float | None, masks: bool
) -> None:
    from harness.engine.video import write_video

    written = write_video(trained, film, output, looks, overlap=windows, masks=masks)
    done = sum(1 for _ in track(written, film.path.name, total=film.promised, console=console))
    raw = f" and {output}/raw/{film.path.stem}" if masks else ""
    _say(f"{film.path}: {done} frames → {output}/overlay/{film.path.stem}.mp4{raw}")
    if film.promised is not None and done != film.promised:
        # some containers only estimate it, so it is no error
        said = f"! {film.path}: its header names {film.promised} frames, {done} could be decoded; is it cut short?"
        console.print(Text(said, "yellow"), soft_wrap=True)


def _show_worst(
    trained: Trained,
    result: Evaluation,
    split: str,
    out: Path,
    count: int,
    looks: tuple[View, ...],
    title: str,
) -> None:
    from harness.data import dataset_root, list_frames
    from harness.report.worst import ORDER, worst_frames, write_worst

    worst = worst_frames(result.names, result.matrices, trained.taxonomy.names, count)
    frames = list_frames(dataset_root(trained.experiment.data), split)
    # the pictures of the command that was asked for JSON must not end up in it
    with errors.status(f"drawing the {len(worst)} worst frames"):
        write_worst(trained, frames, worst, out, looks, title)
    errors.print(f"worst {len(worst)} frames ({ORDER}) → {out}/index.html, worst.png", highlight=False, soft_wrap=True)


def find_run(name: str) -> RunFolder:
    """A run by its folder, or the best run of a study by its name or folder: of a confirmed search, by fresh seeds.

    Raises:
        StudyError: there is neither, or something in it leads out of it.
    """
    from harness.store import StudyFolder, check_links, given_run, results_folder

    path = Path(name)
    run = given_run(path)
    if run is not None:
        return run
    for study in (path, results_folder() / name):
        if (study / "study.yaml").exists():
            check_links(study)
            return _best_run(StudyFolder(study))
    raise StudyError(
        f"run '{name}' does not exist: give a run folder (results/STUDY/runs/TRIAL, it holds experiment.yaml) "
        "or the name of a study"
    )


def _best_run(study: StudyFolder) -> RunFolder:
    from harness.cli.inputs import say_confirmed, standing_confirmation
    from harness.store import Record

    confirmation = standing_confirmation(study)
    if confirmation is not None:
        run = confirmation.folder.run(confirmation.confirmed[0].best_run.trial)
        say_confirmed(confirmation, 1, f"this is {run.path}; any other run can be given by its folder")
        return run
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


def _say(text: str) -> None:
    console.print(text, highlight=False, soft_wrap=True)
