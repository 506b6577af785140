"""A folder of tiny frames, and a cache folder of its own for each test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

IDS = np.array([100, 200, 300, 500, 550, 600, 700, 800, 7100, 10000], np.uint16)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache folder of this test alone."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("HARNESS_CACHE", str(folder))
    return folder


@pytest.fixture
def add_frame() -> Callable[..., np.ndarray]:
    """Write one frame; returns its mask of blocks of raw ids, uint16."""

    def add(root: Path, split: str, name: str, height: int = 64, width: int = 96) -> np.ndarray:
        rng = np.random.default_rng([len(split), sum(name.encode()), height])
        blocks = rng.choice(IDS, (-(-height // 8), -(-width // 8)))
        mask = np.kron(blocks, np.ones((8, 8), np.uint16))[:height, :width]
        for folder, array in (("Color_Images", rng.integers(30, 226, (height, width, 3))), ("Segmentation", mask)):
            path = root / split / folder / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), array.astype(np.uint8 if array.ndim == 3 else np.uint16))
        return mask

    return add


@pytest.fixture
def frames_root(tmp_path: Path, add_frame: Callable[..., np.ndarray]) -> Path:
    """Five training and two validation frames of 64x96."""
    root = tmp_path / "frames"
    for split, names in (("train", "abcde"), ("val", "fg")):
        for name in names:
            add_frame(root, split, name)
    return root
