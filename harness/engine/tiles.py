"""Pictures of what each run predicts on the same few frames, kept so that a sheet can be rebuilt without a model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from harness.config import Experiment
from harness.data import Frame, build_taxonomy, dataset_root, list_frames, read_image, read_mask
from harness.engine.inference import views
from harness.engine.predict import predict_classes, write_rgb
from harness.engine.trained import open_run
from harness.store import RunFolder, checked_name

IMAGE, TRUTH = "image", "truth"


def write_tiles(runs: Mapping[str, RunFolder], experiment: Experiment, out: Path, count: int = 3) -> None:
    """Write `out/COLUMN/FRAME.png` (RGB, at the frame's size) for image, truth and each run.

    Args:
        runs: column to run; one without weights of its own (an ensemble) is left out.
        experiment: whose validation frames and class colours are shown.
        count: frames, spread evenly over the split.
    """
    frames = _spread(list_frames(dataset_root(experiment.data), "val"), count)
    taxonomy = build_taxonomy(experiment.taxonomy)
    for frame in frames:
        raw = read_mask(frame.mask, allow_8bit=taxonomy.eight_bit)
        _write(out, IMAGE, frame, read_image(frame.image))
        _write(out, TRUTH, frame, taxonomy.to_colour(taxonomy.to_classes(raw, str(frame.mask))))
    for column, run in runs.items():
        if run.best.exists():
            _write_run(out, column, run, frames)


def _write_run(out: Path, column: str, run: RunFolder, frames: list[Frame]) -> None:
    trained = open_run(run, torch.device("cpu"))
    looks = views(trained.experiment, trained.experiment.evaluation.tta)
    for frame in frames:
        classes = predict_classes(trained, read_image(frame.image), looks)
        _write(out, column, frame, trained.taxonomy.to_colour(classes))


def _write(out: Path, column: str, frame: Frame, picture: np.ndarray) -> None:
    folder = out / checked_name(column)
    folder.mkdir(parents=True, exist_ok=True)
    write_rgb(folder / f"{frame.image.stem}.png", picture)


def _spread(frames: tuple[Frame, ...], count: int) -> list[Frame]:
    return [frames[i] for i in sorted(set(np.linspace(0, len(frames) - 1, count).round().astype(int)))]
