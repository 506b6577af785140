"""A GPU: images a second of training steps, features stored or not, one or more trials at once, against plain steps."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from harness.bench.gpu_steps import CASES, Case, Step, case_of, has_stem, our_step, their_step
from harness.bench.rows import Measured, Row
from harness.bench.timing import compare
from harness.bench.workplace import Workplace
from harness.errors import TrainingError

TITLE = "GPU: training steps, images a second, against the same steps written plainly"
#: seconds that a process may take from its start to the first timed step
_READY = 300
_DEVICE = "cuda"


@dataclass(frozen=True)
class Effort:
    """Steps of a repetition, pairs of repetitions, processes that share the GPU, and seconds for which they run."""

    steps: int
    pairs: int
    trials: tuple[int, ...]
    seconds: float


FULL, QUICK = Effort(30, 12, (2, 4), 4.0), Effort(5, 3, (2,), 1.0)


def rows(place: Workplace, quick: bool = False) -> Iterator[Row]:
    """For each case: features stored and not, and several trials at once; nothing where there is no GPU."""
    if not torch.cuda.is_available():
        place.console.print("gpu: torch sees no CUDA device here; nothing is measured", highlight=False)
        return
    effort = QUICK if quick else FULL
    for case in CASES:
        place.console.print(f"gpu: {case.name}", highlight=False)
        kinds = (True, False) if has_stem(case) else (False,)
        yield from (alone_row(case, stored, effort, torch.device(_DEVICE)) for stored in kinds)
        for trials in effort.trials:
            theirs = together(case, "theirs", trials, effort.seconds)
            yield from (shared_row(case, stored, trials, effort, theirs) for stored in kinds)


def alone_row(case: Case, stored: bool, effort: Effort, device: torch.device) -> Row:
    """One trial at a time: both sides by turns in this process."""
    ours, theirs = our_step(case, device, stored), their_step(case, device)
    result = compare(_repeated(ours, effort, device), _repeated(theirs, effort, device), effort.pairs)
    images = effort.steps * case.batch
    return Row(
        what=f"{_what(case, stored)}, 1 trial",
        ours=f"{images / result.ours.median:.0f} images/s",
        theirs=f"{images / result.theirs.median:.0f} images/s",
        value=result.speedup,
        unit="x",
        pairs=effort.pairs,
        note=f"{effort.steps} steps a repetition, bf16 on both sides, random batches in host memory; theirs without "
        f"stored features; first call {result.ours.first:.1f} s, theirs {result.theirs.first:.1f} s",
    )


def shared_row(case: Case, stored: bool, trials: int, effort: Effort, theirs: float) -> Row:
    """Several processes of ours on the GPU at once, against `theirs` images a second of as many of the peer's."""
    ours = together(case, "ours, stored" if stored else "ours", trials, effort.seconds)
    return Row(
        what=f"{_what(case, stored)}, {trials} trials at once",
        ours=f"{ours:.0f} images/s",
        theirs=f"{theirs:.0f} images/s",
        value=Measured(ours / theirs),
        unit="x",
        pairs=1,
        note=f"all processes together, {effort.seconds:g} s after each has warmed up; one run of each side",
    )


def together(case: Case, side: str, trials: int, seconds: float) -> float:
    """Images a second of several processes, each with its own model, between one common start and their ends."""
    context = multiprocessing.get_context("spawn")
    barrier, counts = context.Barrier(trials), context.Queue()
    arguments = (case.name, side, seconds, barrier, counts)
    processes = [context.Process(target=_train, args=arguments) for _ in range(trials)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    if any(process.exitcode for process in processes):
        raise TrainingError(
            f"harness bench gpu: {case.name}, {trials} trials: a process failed; see its traceback above"
        )
    return sum(counts.get() for _ in processes)


def _train(name: str, side: str, seconds: float, barrier: Any, counts: Any) -> None:
    """One of the processes: warm up, wait for the others, train for some seconds, report images a second."""
    case, device = case_of(name), torch.device(_DEVICE)
    step = their_step(case, device) if side == "theirs" else our_step(case, device, stored=side == "ours, stored")
    for _ in range(5):
        step()
    torch.cuda.synchronize()
    barrier.wait(_READY)
    counts.put(steps_per_second(step, seconds) * case.batch)


def steps_per_second(step: Step, seconds: float) -> float:
    """Steps a second over at least so many seconds, waiting for the device every ten steps."""
    started, done = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        for _ in range(10):
            step()
        done += 10
        if torch.cuda.is_available():
            torch.cuda.synchronize()
    return done / (time.perf_counter() - started)


def _repeated(step: Step, effort: Effort, device: torch.device) -> Step:
    def run() -> None:
        for _ in range(effort.steps):
            step()
        if device.type == "cuda":
            torch.cuda.synchronize()

    return run


def _what(case: Case, stored: bool) -> str:
    size = f"batch {case.batch} at {case.size[1]}x{case.size[0]}"
    return f"{case.name}, {size}, {'features stored' if stored else 'nothing stored'}"
