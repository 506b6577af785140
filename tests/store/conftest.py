"""Rows to write."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from harness.store import EpochRow


@pytest.fixture
def epoch_row() -> Callable[..., EpochRow]:
    """An epoch's row; what a test does not name has a fixed value."""

    def row(trial: str = "t", epoch: int = 1, score: float = 0.5, done: bool = False) -> EpochRow:
        return EpochRow(
            trial=trial,
            epoch=epoch,
            score=score,
            train_loss=1.25,
            val_loss=1.5,
            terms={"dice": 0.75},
            iou={"Sky": 0.875, "Größe": None},
            train_score=None,
            lr={"head": 1e-4},
            train_seconds=2.0,
            val_seconds=0.5,
            images=4,
            peak_memory_mb=None,
            done=done,
        )

    return row
