"""What happens inside the process that trains."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator
from pathlib import Path

import torch

from harness.config import Trial
from harness.engine import fit
from harness.run.study import describe_error
from harness.store import EpochRow, RunFolder

_log = logging.getLogger(__name__)


def pick_device() -> torch.device:
    """The GPU that this process may see, or the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


class TrialRun:
    """One trial under way: its rows one by one, and what ended it."""

    def __init__(self, trial: Trial, path: Path) -> None:
        self.path = path
        self.rows: Iterator[EpochRow] = fit(trial, RunFolder(path), pick_device())

    def next_row(self) -> EpochRow | str:
        """The next epoch's row, or the first line of what went wrong; the traceback goes to error.txt."""
        try:
            return next(self.rows)
        except Exception as error:  # a trial may fail in any way; the study records how and goes on
            _log.debug("trial failed", exc_info=error)
            self.path.mkdir(parents=True, exist_ok=True)
            (self.path / "error.txt").write_text("".join(traceback.format_exception(error)))
            return describe_error(error)

    def close(self) -> None:
        """Let go of model and data."""
        self.rows.close()
