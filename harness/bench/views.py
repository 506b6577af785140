"""Stored views: what a choice among V stored draws of each frame costs in score, against fresh draws."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from harness.bench.rows import Goal, Measured, Row
from harness.bench.workplace import Workplace
from harness.config import Experiment, Trial, apply_overrides
from harness.engine import fit
from harness.stats import paired_difference, spread
from harness.store import RunFolder

TITLE = "Stored views: score with V stored draws of each frame, against fresh draws"
#: how far the mean score may move, mIoU, 0-1
TOLERANCE = 0.01


@dataclass(frozen=True)
class Effort:
    """Seeds, epochs, numbers of views, and the synthetic desert's training frames, height and width."""

    seeds: int
    epochs: int
    views: tuple[int, ...]
    frames: int
    size: tuple[int, int]


FULL, QUICK = Effort(5, 12, (1, 2, 4, 12), 96, (136, 240)), Effort(2, 2, (1, 2), 6, (32, 48))


def rows(place: Workplace, quick: bool = False) -> Iterator[Row]:
    """A row for each number of views, paired by seed."""
    effort = QUICK if quick else FULL
    experiment = _experiment(effort)
    fresh = scores(place, experiment, effort, 0)
    for views in effort.views:
        yield views_row(scores(place, experiment, effort, views), fresh, views, effort)


def scores(place: Workplace, experiment: Experiment, effort: Effort, views: int) -> list[float]:
    """The best score of each seed, mIoU."""
    place.console.print(f"views: {views or 'fresh draws'}", highlight=False)
    arm = apply_overrides(experiment, {"training.cached_views": views})
    return [
        max(
            row.score for row in fit(Trial(arm, seed), RunFolder(place.folder / f"{views}-{seed}"), torch.device("cpu"))
        )
        for seed in range(effort.seeds)
    ]


def views_row(stored: list[float], fresh: list[float], views: int, effort: Effort) -> Row:
    """How far the mean over seeds moves; with as many views as epochs it must not move at all."""
    moved = paired_difference(stored, fresh)
    exact = views >= effort.epochs
    ends = sorted((abs(moved.low), abs(moved.high)))
    return Row(
        what=f"{views} stored views of each frame, {effort.epochs} epochs",
        ours=f"mIoU {np.mean(stored):.4f}",
        theirs=f"mIoU {np.mean(fresh):.4f}, spread between seeds {spread(fresh):.4f}",
        value=Measured(abs(moved.point), 0.0 if moved.low <= 0 <= moved.high else ends[0], ends[1], 0.95),
        unit="mIoU apart",
        pairs=effort.seeds,
        goal=Goal(0.0 if exact else TOLERANCE, at_least=False),
        note=f"mean difference {moved.point:+.4f}, of one seed at most {np.abs(np.subtract(stored, fresh)).max():.4f}; "
        "frozen mobilenetv3_small_050, random weights, conv_stack head, policy ignitia_phase3, synthetic desert"
        + ("; as many views as epochs: every draw is the fresh one" if exact else ""),
    )


def _experiment(effort: Effort) -> Experiment:
    height, width = effort.size
    desert = {"train": effort.frames, "val": max(2, effort.frames // 3), "test": 1, "height": height, "width": width}
    return apply_overrides(
        Experiment(),
        {
            "data": {"synthetic": desert, "input_size": effort.size},
            "augmentation": {"kind": "named", "policy": "ignitia_phase3"},
            "model": {"kind": "backbone", "backbone": "mobilenetv3_small_050", "weights": "none"},
            "model.head": {"kind": "conv_stack"},
            "training": {"epochs": effort.epochs, "batch_size": 8},
        },
    )
