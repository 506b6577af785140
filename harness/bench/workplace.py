"""Where a benchmark works: a folder that goes afterwards, a cache of its own, a fixed number of threads."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console

_CACHE = "HARNESS_CACHE"


@dataclass(frozen=True)
class Workplace:
    """A folder for everything that a benchmark writes, and the console that shows how far it is."""

    folder: Path
    console: Console


@contextmanager
def workplace(console: Console, threads: int = 1) -> Iterator[Workplace]:
    """A fresh folder with an empty harness cache inside, so that a cache is built, and paid for, in the run.

    One thread by default: a trial has one core, and two sides are compared per core.
    """
    before, cache = torch.get_num_threads(), os.environ.get(_CACHE)
    with tempfile.TemporaryDirectory(prefix="harness-bench-", ignore_cleanup_errors=True) as folder:
        os.environ[_CACHE] = str(Path(folder) / "cache")
        torch.set_num_threads(threads)
        try:
            yield Workplace(Path(folder), console)
        finally:
            torch.set_num_threads(before)
            _restore(cache)


def _restore(cache: str | None) -> None:
    if cache is None:
        del os.environ[_CACHE]
    else:
        os.environ[_CACHE] = cache
