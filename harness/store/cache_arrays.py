"""The arrays of a cache as memory maps, which every process of a machine shares."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np

from harness.store.cache_folders import use, whole_seal


def map_once(folder: Path, build: Callable[[Path], None], *, verify: bool = False) -> dict[str, np.ndarray]:
    """The arrays of a cache as read-only memory maps, by the names of their .npy files; built as by `build_once`.

    The cache counts as used while one of them, or a part of one, lives.
    """
    return _map(folder, whole_seal(folder, build, verify))


def map_built(folder: Path) -> dict[str, np.ndarray] | None:
    """As `map_once`, of a cache that is there and whole; None: it is not."""
    seal = use(folder)
    return None if seal is None else _map(folder, seal)


def map_arrays(folder: Path) -> dict[str, np.ndarray]:
    """The arrays of a cache that another process uses, for as long as that does."""
    return {path.stem: np.load(path, mmap_mode="r", allow_pickle=False) for path in folder.glob("*.npy")}


def _map(folder: Path, seal: int) -> dict[str, np.ndarray]:
    try:
        arrays = map_arrays(folder)
        for array in arrays.values():
            # of the map, which all its views hold; the lock is given back when the last copy of the seal is closed
            weakref.finalize(array.base, os.close, os.dup(seal))
    finally:
        os.close(seal)
    return arrays
