"""A training of a second, a search over it, and a results folder for each test."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from harness.config import Experiment, Space, apply_overrides, validate_section
from harness.data import write_desert
from harness.store import StudyFolder

TINY: dict[str, Any] = {
    "data": {
        "synthetic": {"train": 6, "val": 3, "test": 2, "height": 32, "width": 48},
        "input_size": [32, 48],
    },
    "model": {
        "kind": "backbone",
        "backbone": "mobilenetv3_small_050",
        "weights": "none",
        "trainable_blocks": "all",
        "stride": 8,
        "head": {"kind": "linear"},
    },
    "training": {"epochs": 3, "batch_size": 2, "drop_last": True},
}

PARAMETERS: dict[str, Any] = {
    "lr": {"kind": "float", "field": "optimiser.lr", "low": 1e-4, "high": 1e-1, "log": True},
    # with drop_last, nine of six frames are no batch: such a trial fails
    "batch": {"kind": "int", "field": "training.batch_size", "low": 2, "high": 9, "step": 7},
}


@pytest.fixture(autouse=True)
def one_thread():
    """As the workers of one CPU have."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The results folder of this test, not there yet."""
    monkeypatch.setenv("HARNESS_RESULTS", str(tmp_path / "results"))
    return tmp_path / "results"


@pytest.fixture(scope="session")
def tiny() -> Callable[..., Experiment]:
    """The tiny Experiment, with overrides by dotted path."""

    def make(**overrides: Any) -> Experiment:
        experiment = validate_section(Experiment, TINY, "tiny")
        return apply_overrides(experiment, {path.replace("__", "."): value for path, value in overrides.items()})

    return make


@pytest.fixture(scope="session")
def tiny_space() -> Callable[..., Space]:
    """A search over the tiny Experiment; `parameters` replace the default ones."""

    def make(parameters: dict[str, Any] | None = None, experiment: Experiment | None = None, trials: int = 5) -> Space:
        values = {
            "experiment": TINY if experiment is None else experiment.model_dump(mode="json"),
            "search": {"trials": trials, "strategy": "random_asha"},
            "parameters": parameters or PARAMETERS,
        }
        return validate_section(Space, values, "space")

    return make


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    """An empty study folder."""
    path = tmp_path / "study"
    path.mkdir()
    return StudyFolder(path)


@pytest.fixture
def console() -> Console:
    """A console that is no terminal and keeps what is printed in its file."""
    return Console(file=io.StringIO(), width=160)


@pytest.fixture(scope="session")
def desert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset folder of six training, three validation and two test frames; not to be changed."""
    root = tmp_path_factory.mktemp("data") / "desert"
    write_desert(root, train=6, val=3, test=2, height=32, width=48, seed=0)
    return root


@pytest.fixture
def frames(desert: Path, tmp_path: Path) -> Path:
    """A copy of the dataset for this test to break."""
    return Path(shutil.copytree(desert, tmp_path / "frames"))
