"""The pictures that an ablation keeps are what its runs predict."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch

from harness.config import Experiment, Trial, apply_overrides
from harness.data import dataset_root, list_frames, read_image
from harness.engine import fit
from harness.engine.predict import predict_classes
from harness.engine.tiles import write_tiles
from harness.engine.trained import open_run
from harness.store import RunFolder


def rgb(path: Path) -> np.ndarray:
    return cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)


def test_tiles_hold_image_truth_and_each_runs_prediction_at_the_frames_size(tmp_path: Path) -> None:
    experiment = apply_overrides(
        Experiment(),
        {
            "data.synthetic": {"train": 4, "val": 3, "test": 1, "height": 36, "width": 52},
            "data.input_size": [32, 48],
            "training.epochs": 1,
        },
    )
    run = RunFolder(tmp_path / "run")
    list(fit(Trial(experiment, 0), run, torch.device("cpu")))
    write_tiles({"mine": run, "nothing_trained": RunFolder(tmp_path / "none")}, experiment, tmp_path / "tiles", count=2)

    frames = list_frames(dataset_root(experiment.data), "val")
    kept = [frames[0], frames[2]]
    names = [f"{frame.image.stem}.png" for frame in kept]
    assert sorted(p.name for p in (tmp_path / "tiles").iterdir()) == ["image", "mine", "truth"]
    assert sorted(p.name for p in (tmp_path / "tiles" / "truth").iterdir()) == names
    trained = open_run(run, torch.device("cpu"))
    for frame, name in zip(kept, names, strict=True):
        image = read_image(frame.image)
        predicted = trained.taxonomy.to_colour(predict_classes(trained, image, ()))
        assert np.array_equal(rgb(tmp_path / "tiles" / "image" / name), image)
        assert np.array_equal(rgb(tmp_path / "tiles" / "mine" / name), predicted)
