"""A small Space, and rows as an executor would bring them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.config import Space, validate_section
from harness.store import EpochRow, StudyFolder

PARAMETERS: dict[str, Any] = {
    "head": {
        "kind": "choice",
        "field": "model.head",
        "choices": {"stack": {"kind": "conv_stack", "channels": 64}, "linear": {"kind": "linear"}},
    },
    "channels": {
        "kind": "int",
        "field": "model.head.channels",
        "low": 32,
        "high": 96,
        "step": 32,
        "when": {"head": ["stack"]},
    },
    "lr": {"kind": "float", "field": "optimiser.lr", "low": 1e-4, "high": 1e-1, "log": True},
    "dice": {"kind": "float", "field": "loss.dice.weight", "low": 0.0, "high": 2.0, "step": 0.5},
    "batch": {"kind": "int", "field": "training.batch_size", "low": 1, "high": 64, "log": True},
}


@pytest.fixture
def make_space() -> Callable[..., Space]:
    """A Space of the parameters above, or of others; keywords go into its `search` section."""

    def make(parameters: dict[str, Any] | None = None, epochs: int = 9, **search: Any) -> Space:
        values = {
            "experiment": {"training": {"epochs": epochs}},
            "search": {"trials": 6, "strategy": "random_asha"} | search,
            "parameters": parameters or PARAMETERS,
        }
        return validate_section(Space, values, "space")

    return make


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    """An empty study folder called `hunt`."""
    path = tmp_path / "hunt"
    path.mkdir()
    return StudyFolder(path)


@pytest.fixture
def row() -> Callable[..., EpochRow]:
    """A row as the training would yield it."""

    def make(trial: str, epoch: int, score: float, done: bool = False) -> EpochRow:
        return EpochRow(
            trial=trial,
            epoch=epoch,
            score=score,
            train_loss=1.0,
            val_loss=1.0,
            terms={},
            iou={},
            train_score=None,
            lr={"head": 0.001},
            train_seconds=1.0,
            val_seconds=0.5,
            images=6,
            peak_memory_mb=None,
            done=done,
        )

    return make
