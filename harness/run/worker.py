"""What happens inside the process that trains."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator
from pathlib import Path

import torch

from harness.config import Trial
from harness.engine import fit
from harness.errors import OutOfMemory, StorageError
from harness.run.study import describe_error
from harness.store import EpochRow, Failure, RunFolder, full_disk, is_full_disk

_log = logging.getLogger(__name__)

#: how torch says that memory ran out where it has no exception for that: on the host, and on a GPU outside of its
#: own allocator
_NO_MEMORY = ("can't allocate memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")


def pick_device() -> torch.device:
    """The GPU that this process may see, or the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


class TrialRun:
    """One trial under way: its rows one by one, and what ended it."""

    def __init__(self, trial: Trial, path: Path, device: str | None = None, known: int | None = None) -> None:
        """Take the trial and its run folder.

        Args:
            device: none: the GPU that this process may see, or the CPU.
            known: the last epoch that the study knows; none: all that were saved.
        """
        self.path = path
        chosen = torch.device(device) if device else pick_device()
        self.rows: Iterator[EpochRow] = fit(trial, RunFolder(path), chosen, known)

    def next_row(self) -> EpochRow | Failure:
        """The next epoch's row, or what went wrong; the traceback goes to error.txt."""
        try:
            return next(self.rows)
        except Exception as error:  # a trial may fail in any way; the study records how and goes on
            return self._failed(error)

    def close(self) -> Failure | None:
        """Let go of model and data, all files written; what went wrong where they could not be, as in `next_row`."""
        try:
            self.rows.close()
        except Exception as error:
            return self._failed(error)
        return None

    def _failed(self, error: Exception) -> Failure:
        _log.debug("trial failed", exc_info=error)
        failure = describe_failure(error, self.path)
        if failure.cause != "disk":
            self._keep(error)
        return failure

    def _keep(self, error: Exception) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            (self.path / "error.txt").write_text("".join(traceback.format_exception(error)))
        except OSError as unwritten:  # the failure itself is what counts, and has its row
            _log.warning("%s/error.txt is not written (%s)", self.path, unwritten)


def describe_failure(error: Exception, path: Path) -> Failure:
    """What ended the trial that writes into `path`, in one line, and whose fault it is."""
    if isinstance(error, StorageError):
        return Failure(str(error), "disk")
    if is_full_disk(error):
        return Failure(full_disk(Path(getattr(error, "filename", None) or path), describe_error(error)), "disk")
    if isinstance(error, OutOfMemory):
        return Failure(describe_error(error), "memory")
    if is_out_of_memory(error):
        return Failure(
            f"out of memory ({describe_error(error)}); lower training.batch_size (raise training.accumulation "
            "instead), data.input_size or training.workers, or run fewer trials at once",
            "memory",
        )
    return Failure(describe_error(error))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the memory of a GPU or of the host is used up."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _NO_MEMORY)
