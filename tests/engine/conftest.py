"""A training that takes a tenth of a second: ten frames of 32x48 and a network of timm's own tests."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.config import Experiment, Trial, apply_overrides, validate_section
from harness.engine import fit
from harness.store import EpochRow, RunFolder

_TINY = {
    "data": {"synthetic": {"train": 5, "val": 3, "test": 2, "height": 32, "width": 48}, "input_size": [32, 48]},
    "augmentation": {"kind": "named", "policy": "none"},
    "model": {
        "kind": "backbone",
        "backbone": "test_efficientnet",
        "weights": "none",
        "trainable_blocks": "all",
        "stride": 8,
        "head": {"kind": "linear"},
    },
    "training": {"epochs": 3, "batch_size": 2},
}


@pytest.fixture(scope="session", autouse=True)
def folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Cache and results of these tests alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HARNESS_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("HARNESS_RESULTS", str(tmp_path_factory.mktemp("results")))
        yield


@pytest.fixture
def experiment() -> Callable[..., Experiment]:
    """The tiny Experiment with overrides, dotted path to value."""

    def build(overrides: dict[str, Any] | None = None) -> Experiment:
        return apply_overrides(validate_section(Experiment, _TINY, "tiny"), overrides or {})

    return build


@pytest.fixture
def train() -> Callable[..., list[EpochRow]]:
    """Train an Experiment on the CPU, or go on training it; `epochs` leaves it after so many rows."""

    def run(experiment: Experiment, folder: Path, seed: int = 0, epochs: int | None = None) -> list[EpochRow]:
        rows = fit(Trial(experiment, seed), RunFolder(folder), torch.device("cpu"))
        taken = list(islice(rows, epochs))
        rows.close()
        return taken

    return run


@pytest.fixture
def no_room_for(monkeypatch: pytest.MonkeyPatch) -> Callable[..., AbstractContextManager]:
    """A disk that is full whenever a file of a name is to be written, after so many times."""

    @contextmanager
    def full(name: str, after: int) -> Iterator[None]:
        left, fsync = [after], os.fsync

        def until_full(descriptor: int) -> None:
            if f"/.{name}." in os.readlink(f"/proc/self/fd/{descriptor}"):
                left[0] -= 1
                if left[0] < 0:
                    raise OSError(errno.ENOSPC, "No space left on device")
            fsync(descriptor)

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", until_full)
            yield

    return full
