"""What people see while a study runs: the dashboard on a terminal, a line per ended trial elsewhere."""

from __future__ import annotations

import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from harness.ablate import GreedyPath, Racing, Replicates
from harness.config import Trial
from harness.run.dashboard import ended_line, frame
from harness.run.gpu_memory import GpuMeter
from harness.run.plan import Kind, Plan
from harness.run.snapshot import Snapshot, Tally
from harness.run.study import Study
from harness.search import Search
from harness.search.confirmation import are_ranks
from harness.store import EpochRow, TrialRow

_FRAMES_PER_SECOND = 2


class Progress:
    """The dashboard of a study that this process drives.

    Whatever goes wrong in showing it, a terminal that is gone or a fault of our own, is said once and ends the
    showing, never the study.
    """

    def __init__(
        self, console: Console, study: Study, planned: int, epochs: int, device_seconds: float | None = None
    ) -> None:
        """Take how many trials and epochs are planned, and the seconds that all epochs may take together."""
        self.console, self.study, self.is_on = console, study, not console.quiet
        self.tally = tally_of(study, planned, epochs)
        self.tally.deadline = study.deadline if isinstance(study, Search) else None
        self.tally.device_seconds = device_seconds
        self.gpus = GpuMeter()
        self.started_at = time.monotonic()
        # frames are drawn by a thread of their own
        self.lock = threading.Lock()
        self.live = Live(
            get_renderable=self._frame, console=console, refresh_per_second=_FRAMES_PER_SECOND, transient=True
        )

    def __enter__(self) -> Progress:
        if self.console.is_terminal:
            self._show(self.live.start)
        return self

    def __exit__(self, *_: object) -> None:
        self._show(self.live.stop)

    def started(self, trial: Trial) -> None:
        """A trial starts or goes on."""
        number, picked = facts_of(self.study, trial.id)
        with self.lock:
            self.tally.known(trial.id, number, picked, trial.experiment.training.epochs)
            self.tally.goes_on(trial.id)

    def epoch(self, row: EpochRow) -> None:
        """A trial finished an epoch."""
        with self.lock:
            self.tally.epoch(row)

    def ended(self, trial_id: str, row: TrialRow | None) -> None:
        """A trial ended, and its line stays on the screen; or it paused."""
        with self.lock:
            if row is None:
                self.tally.waits(trial_id)
            else:
                self.tally.ended(row)
            scores = list(self.tally.known(trial_id).scores.values())
        if row is not None:
            self._show(lambda: self._print(row, scores))

    def snapshot(self) -> Snapshot:
        """The study now."""
        gpus = self.gpus.read()
        with self.lock:
            return self.tally.snapshot("running", time.monotonic() - self.started_at, gpus)

    def _frame(self) -> RenderableType:
        frames: list[RenderableType] = [Text()]
        self._show(lambda: frames.append(frame(self.snapshot(), self.console.width, self.console.height)))
        return frames[-1]

    def _print(self, row: TrialRow, scores: list[float]) -> None:
        line = ended_line(row, scores)
        if row.error is None:
            self.console.print(line, highlight=False, no_wrap=True, overflow="ellipsis")
        else:
            # an error is read, copied and searched for: whole, in one line
            self.console.print(line, highlight=False, soft_wrap=True)

    def _show(self, show: Callable[[], None]) -> None:
        if not self.is_on:
            return
        try:
            show()
        except (Exception, SystemExit):  # rich ends the program where a pipe is closed; the study goes on
            self.is_on = False
            with suppress(OSError, ValueError):
                sys.stderr.write(f"the live view is off, the study goes on:\n{traceback.format_exc()}")


def facts_of(study: Study, trial_id: str) -> tuple[int | None, Mapping[str, Any]]:
    """A running trial's number in the study and its picked values."""
    if isinstance(study, Search):
        running = study.running[trial_id]
        return running.number, running.picked
    if isinstance(study, Replicates):
        return study.numbers[trial_id], {"arm": study.arm_of[trial_id], "seed": study.running[trial_id].seed}
    return None, {}


def tally_of(study: Study, planned: int, epochs: int) -> Tally:
    """All trials of a study; a resumed one's with all that was there before."""
    at_most = isinstance(study, Racing | GreedyPath)
    search, baseline = (study.space.search, study.baseline) if isinstance(study, Search) else (None, None)
    tally = Tally(Plan(study.folder.name, _kind(study), planned, epochs, at_most, search, baseline is not None))
    for rows in study.record.epochs.values():
        for row in rows:
            tally.epoch(row, live=False)
        tally.waits(rows[-1].trial)
    for row in study.record.ended.values():
        tally.ended(row)
    return tally


def _kind(study: Study) -> Kind:
    if isinstance(study, Search):
        return "search"
    arms = getattr(study, "arms", ())
    if arms and are_ranks(arms):
        return "confirmation"
    return "ablation" if len(arms) > 1 else "training"
