"""A workplace, a console that keeps what is printed, and a few tiny frames."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import cv2
import pytest
from rich.console import Console

from harness.bench.workplace import Workplace, workplace
from harness.data import write_desert


@pytest.fixture
def place() -> Iterator[Workplace]:
    threads = cv2.getNumThreads()
    with workplace(Console(file=io.StringIO(), width=160)) as here:
        yield here
    cv2.setNumThreads(threads)


@pytest.fixture
def desert(place: Workplace) -> Path:
    """Four training and three validation frames of 64x96."""
    root = place.folder / "frames"
    write_desert(root, train=4, val=3, test=1, height=64, width=96, seed=3)
    return root
