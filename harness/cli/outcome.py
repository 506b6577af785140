"""What is printed after a study, below its summary."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from harness.cli.app import console
from harness.errors import TrainingError

if TYPE_CHECKING:
    from harness.store import StudyFolder


def print_failures(folder: StudyFolder) -> None:
    """The failed trials by cause; nothing where none failed."""
    from harness.report.failures import failures

    if (found := failures(folder)) is not None:
        console.print(found, soft_wrap=True)


def print_unreached(folder: StudyFolder) -> None:
    """The searched values that changed nothing; nothing where all did."""
    from harness.report.unreached import unreached

    if (found := unreached(folder)) is not None:
        console.print(found, soft_wrap=True)


@contextmanager
def failures_shown(folder: StudyFolder) -> Iterator[None]:
    """Show the failed trials of a study that gives up, which has no summary."""
    try:
        yield
    except TrainingError:
        print_failures(folder)
        raise
