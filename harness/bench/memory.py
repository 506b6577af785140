"""Memory of one more trial on a node: how often the cached files lie in memory, by proportional set size."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch

from harness.bench.frames import desert_frames
from harness.bench.rows import Goal, Measured, Row
from harness.bench.workplace import Workplace
from harness.config import Experiment, Trial, apply_overrides
from harness.data import cache_folder
from harness.engine import fit
from harness.errors import StudyError
from harness.store import RunFolder

TITLE = "Memory: one more concurrent trial on a node"
_SMAPS = Path("/proc/self/smaps")
_MIB = 2**20


@dataclass(frozen=True)
class Effort:
    """Training frames, and height and width of frames and input."""

    frames: int
    size: tuple[int, int]


FULL, QUICK = Effort(200, (266, 476)), Effort(6, (56, 84))


def rows(place: Workplace, quick: bool = False) -> Iterator[Row]:
    """One row: two trials side by side, against the same arrays read into each process.

    Raises:
        StudyError: the system does not say how memory is shared.
    """
    if not _SMAPS.is_file():
        raise StudyError(
            "harness bench memory: this system has no /proc/PID/smaps, which says what is shared; use Linux"
        )
    yield memory_row(place, QUICK if quick else FULL)


def memory_row(place: Workplace, effort: Effort) -> Row:
    """Start one trial, weigh it, start a second, weigh both; then do so with copies."""
    trial = Trial(_experiment(place, effort), 0)
    with ExitStack() as stack:
        first = stack.enter_context(_worker(trial, place.folder / "memory-0"))
        one = mapped_pss([first])
        second = stack.enter_context(_worker(trial, place.folder / "memory-1"))
        two = mapped_pss([first, second])
        copied = [_copy(pid_and_pipe) for pid_and_pipe in (first, second)]
    return Row(
        what=f"memory of a second trial, frames and features of {effort.frames} frames",
        ours=f"{one / _MIB:.3g} MiB with one trial, {two / _MIB:.3g} MiB with two",
        theirs=f"{copied[0] / _MIB:.3g} MiB with one process, {sum(copied) / _MIB:.3g} MiB with two",
        value=Measured(two / one),
        unit="copies",
        pairs=1,
        goal=Goal(1.05, at_least=False),
        note="frozen ViT-S, features stored; sum over the processes of the proportional set size (PSS) of mapped cache "
        "files, after one epoch in each; theirs: the same files read into the memory of each process",
    )


def mapped_pss(workers: list[tuple[int, Connection]]) -> int:
    """Bytes of cache files in the workers' memory, a page that several map counted once between them."""
    folder = str(cache_folder())
    return sum(pss(Path(f"/proc/{pid}/smaps").read_text(), folder) for pid, _ in workers)


def pss(smaps: str, word: str) -> int:
    """Bytes of proportional set size of the mappings whose line in /proc/PID/smaps holds a word."""
    total, counted = 0, False
    for line in smaps.splitlines():
        key = line.split(maxsplit=1)[0]
        if not key.endswith(":"):  # a mapping's own line starts with its addresses
            counted = word in line
        elif counted and key == "Pss:":
            total += int(line.split()[1]) * 1024
    return total


def _experiment(place: Workplace, effort: Effort) -> Experiment:
    root = desert_frames(place, effort.frames, max(2, effort.frames // 8), effort.size)
    return apply_overrides(
        Experiment(),
        {
            "data": {"root": str(root), "input_size": effort.size},
            "augmentation": {"kind": "named", "policy": "none"},
            "model": {"kind": "backbone", "backbone": "vit_small_patch14_dinov2", "weights": "none"},
            "model.head": {"kind": "linear"},
            "training": {"epochs": 2, "precision": "bf16"},
        },
    )


@contextmanager
def _worker(trial: Trial, folder: Path) -> Iterator[tuple[int, Connection]]:
    """A process that trained one epoch and holds its trial open; its id, and the pipe that lets it copy and go."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_train_and_hold, args=(trial, folder, there))
    process.start()
    there.close()
    try:
        here.recv()
        yield process.pid, here
    finally:
        here.close()
        process.join()


def _train_and_hold(trial: Trial, folder: Path, pipe: Connection) -> None:
    torch.set_num_threads(1)
    epochs = fit(trial, RunFolder(folder), torch.device("cpu"))
    next(epochs)
    pipe.send(None)
    try:
        pipe.recv()
    except EOFError:
        return
    before = _anonymous()
    paths = sorted(cache_folder().glob("f*/*.npy"))
    kept = [np.array(np.load(path, mmap_mode="r", allow_pickle=False)) for path in paths]
    pipe.send(_anonymous() - before)
    del kept


def _copy(worker: tuple[int, Connection]) -> int:
    """Bytes by which a worker grows when it reads the cache files into its own memory."""
    worker[1].send(None)
    return worker[1].recv()


def _anonymous() -> int:
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss_Anon:"))
