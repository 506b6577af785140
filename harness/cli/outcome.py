"""What is printed after a study, below its summary."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from harness.cli.app import INTERRUPTED, console, print_resume
from harness.errors import DiskFull, TrainingError

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


def print_stopped_higher(folder: StudyFolder) -> None:
    """That the first was not the highest, where a trial that was stopped early had a higher score."""
    from harness.store import Record

    ranking = Record(folder).ranking()
    highest = max(ranking, key=lambda row: row.score, default=None)
    if highest is not None and highest.score > ranking[0].score:
        console.print(
            f"trial {ranking[0].number} is the best of those trained to the end; trial {highest.number} scored "
            f"{highest.score:.4f} and was stopped after {highest.epochs} epochs",
            highlight=False,
            soft_wrap=True,
        )


def print_next(folder: StudyFolder) -> None:
    """The commands that come after a search, its confirmation first where it had none; nothing without a score."""
    from harness.search.confirmation import asks_for_confirmation
    from harness.store import Record

    if not Record(folder).ranking():
        return
    study = shlex.quote(str(folder.path))
    asked = asks_for_confirmation(folder, study)
    confirm = [] if asked is None else [f"{asked[0]}    # {asked[1]}"]
    _print_commands(*confirm, f"harness export {study} --to model")


def print_next_of_training(folder: StudyFolder) -> None:
    """What can be done with a trained Experiment; nothing where no seed has a score."""
    from harness.store import Record

    if Record(folder).ranking():
        study = shlex.quote(str(folder.path))
        test = f"harness evaluate {study} --split test    # the first look at frames that had no say"
        _print_commands(test, f"harness predict {study} PHOTOS -o out")


def _print_commands(*commands: str) -> None:
    for i, command in enumerate(commands):
        console.print(f"{'' if i else 'next':<8}{command}", highlight=False, markup=False, soft_wrap=True)


def print_page(folder: StudyFolder, upload: str | None = None) -> None:
    """Write the study's page, one HTML file, and say where it is; copy it, with tables and plots, to a URI."""
    from harness.report.html.page import write_page

    console.print(f"page    {write_page(folder)}", highlight=False, markup=False, soft_wrap=True)
    if upload is not None:
        # it imports pyarrow
        from harness.store.upload import upload_reports

        upload_reports(folder, upload)
        console.print(f"copy    {upload}", highlight=False, markup=False, soft_wrap=True)


@contextmanager
def failures_shown(folder: StudyFolder, how_to_go_on: Callable[[], None] | None = None) -> Iterator[None]:
    """For a study that ends without a summary: failures and page where it gives up, how to go on if stopped at once.

    Args:
        how_to_go_on: prints the command that does; none: this one with the study's name and --resume.
    """
    try:
        yield
    except TrainingError as error:
        print_failures(folder)
        # a page would find no room either
        if folder.settings.exists() and not isinstance(error, DiskFull):
            print_page(folder)
        raise
    except KeyboardInterrupt:
        if folder.settings.exists():
            (how_to_go_on or (lambda: print_resume(folder.name)))()
        raise typer.Exit(INTERRUPTED) from None
