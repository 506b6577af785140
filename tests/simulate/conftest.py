"""A study of short trials on the black box, and one that was recorded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.config import SearchSettings, Space, apply_overrides, dump_yaml
from harness.search import Search
from harness.simulate.black_box import black_box_space
from harness.simulate.curves import Curves, Family, ParametricCurves
from harness.store import EpochRow, StudyFolder


@pytest.fixture
def make_curves() -> Callable[..., ParametricCurves]:
    """Curves of a family over the black box, nine epochs; keywords go into the `search` section."""

    def make(family: Family = "cross", seed: int = 0, epochs: int = 9, **search: Any) -> ParametricCurves:
        curves = ParametricCurves(black_box_space(epochs), family, seed)
        search = apply_overrides(curves.space.search, {"trials": 20} | search)
        curves.space = curves.space.model_copy(update={"search": search})
        return curves

    return make


@pytest.fixture
def record() -> Callable[[Path, Space, Curves], StudyFolder]:
    """Write a study on disk whose trainings follow curves."""

    def write(path: Path, space: Space, curves: Curves) -> StudyFolder:
        path.mkdir()
        folder = StudyFolder(path)
        folder.settings.write_text(
            dump_yaml(SearchSettings(space=space, seed=0, dataset="f00d").model_dump(mode="json"))
        )
        search = Search(folder, space, seed=0)
        while (trial := search.next_trial()) is not None:
            curve = curves.curve(search.running[trial.id].picked, trial.seed)
            epoch = max(1, len(search.record.epochs.get(trial.id, [])))
            while search.on_epoch(as_row(trial.id, epoch, float(curve.observed[epoch - 1]), len(curve.observed))):
                epoch += 1
            search.on_end(trial.id)
        return folder

    return write


def as_row(trial: str, epoch: int, score: float, epochs: int) -> EpochRow:
    return EpochRow(
        trial=trial,
        epoch=epoch,
        score=score,
        train_loss=0.0,
        val_loss=0.0,
        terms={},
        iou={},
        train_score=None,
        lr={},
        train_seconds=2.0,
        val_seconds=1.0,
        images=0,
        peak_memory_mb=None,
        done=epoch == epochs,
    )
