"""Which caches there are, and which of them go when there is too little room: the longest unused, never a used one."""

from __future__ import annotations

import math
import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from harness.errors import ConfigError, DataError
from harness.store.cache_folders import (
    BUILDING,
    SEAL,
    cache_folder,
    discard,
    folder_size,
    lock_of,
    remove_leftovers_of,
    unused,
)


class NoRoom(DataError):
    """A cache that fits neither the limit nor the disk, after all that nobody uses."""


@dataclass(frozen=True)
class CacheEntry:
    """One cache: bytes on disk, last use in seconds since 1970, whether a live process uses it."""

    folder: Path
    size: int
    last_used: float
    in_use: bool


def size_limit() -> int:
    """Bytes that all caches may have together: $HARNESS_CACHE_GB (of 10^9 bytes), or half of the disk they lie on.

    Raises:
        ConfigError: the variable is no number above 0.
    """
    text = os.environ.get("HARNESS_CACHE_GB")
    if not text:
        return shutil.disk_usage(cache_folder()).total // 2
    with suppress(ValueError):
        if 0 < float(text) < math.inf:
            return int(float(text) * 1e9)
    raise ConfigError(
        f"HARNESS_CACHE_GB '{text}' is not a number of gigabytes above 0; set it to e.g. 50, or leave it unset for "
        "half of the disk"
    )


def cache_entries() -> list[CacheEntry]:
    """The caches that `build_once` made in the cache folder, longest unused first."""
    root = cache_folder()
    entries = [_entry(p) for p in root.iterdir() if not p.is_symlink()] if root.is_dir() else []
    return sorted((e for e in entries if e is not None), key=lambda e: (e.last_used, e.folder.name))


def make_room(needed: int, what: str, smaller: str) -> None:
    """Remove the longest unused caches until `needed` more bytes fit the limit and the disk.

    None is removed where removing all unused ones would not do. What other processes are building is not counted.

    Raises:
        NoRoom: `what` needs more room than can be made; `smaller` says how it would need less.
    """
    root = cache_folder()
    # one process at a time: asking whether a cache is used looks, to others who ask, like using it
    with lock_of(root / "room"):
        entries = cache_entries()
        unused_ones = [entry for entry in entries if not entry.in_use]
        if _missing(needed, entries) <= sum(entry.size for entry in unused_ones):
            for entry in unused_ones:
                if _missing(needed, cache_entries()) > 0:
                    remove_cache(entry.folder)
        entries = cache_entries()
        if _missing(needed, entries) > 0:
            raise NoRoom(_too_little_room(needed, entries, what, smaller))


def remove_cache(folder: Path) -> bool:
    """Remove a cache; False, and it stays, where a live process uses or builds it."""
    with lock_of(folder, wait=False) as mine, unused(folder) as idle:
        if mine and idle:
            discard(folder)
        return mine and idle


def remove_leftovers() -> int:
    """Remove what killed builders left in the cache folder; returns the bytes freed."""
    building, freed = cache_folder() / BUILDING, 0
    names = {p.name.rpartition(".")[0] for p in building.iterdir()} if building.is_dir() else set()
    for name in sorted(names - {""}):
        with lock_of(cache_folder() / name, wait=False) as mine:
            freed += remove_leftovers_of(cache_folder() / name) if mine else 0
    return freed


def _entry(folder: Path) -> CacheEntry | None:
    """None where a folder is none of ours, or another process removes it at this moment."""
    with suppress(FileNotFoundError, NotADirectoryError):
        last_used = (folder / SEAL).stat().st_mtime
        with unused(folder) as idle:
            return CacheEntry(folder, folder_size(folder), last_used, not idle)
    return None


def _missing(needed: int, entries: list[CacheEntry]) -> int:
    """Bytes that `needed` is above what is left of the limit and of the disk."""
    held = sum(entry.size for entry in entries)
    return needed - min(size_limit() - held, shutil.disk_usage(cache_folder()).free)


def _too_little_room(needed: int, entries: list[CacheEntry], what: str, smaller: str) -> str:
    root, free = cache_folder(), shutil.disk_usage(cache_folder()).free
    need = f"{what} need {needed / 1e9:.1f} GB in {root}, where"
    if needed > free:
        return f"{need} {free / 1e9:.1f} GB are free; free some room, set HARNESS_CACHE to a larger disk, or {smaller}"
    used = sum(entry.size for entry in entries if entry.in_use)
    return (
        f"{need} running processes use {used / 1e9:.1f} GB and the limit is {size_limit() / 1e9:.1f} GB; set "
        f"HARNESS_CACHE_GB to {math.ceil((needed + used) / 1e9)} or more, or {smaller}"
    )
