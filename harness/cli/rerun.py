"""`harness rerun`: one trial of a study again, alone, where a debugger can follow it."""

from __future__ import annotations

import os
import re
from itertools import count
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.app import app, console, with_traceback
from harness.config import name_problem, visible
from harness.errors import HarnessError, StudyError

if TYPE_CHECKING:
    from harness.config import Trial
    from harness.store import EpochRow, Record, RunFolder, StudyFolder


@app.command()
def rerun(
    study: Annotated[str, typer.Argument(help="Study name or folder.")],
    trial: Annotated[str, typer.Argument(help="Number in the study, or id (a folder in its runs).")],
) -> None:
    """Train one trial of a study again, in this process; the study's records stay as they are.

    What goes wrong comes through with its traceback, so that a debugger stops there:
    python -m pdb -m harness rerun STUDY TRIAL
    """
    import torch

    from harness.config import Trial, apply_overrides
    from harness.store import Record, find_study

    folder = find_study(study)
    record = Record(folder)
    id_ = find_trial(record, trial)
    seed = _seed(id_)
    # processes of a loader are out of a debugger's reach; they change no number
    experiment = apply_overrides(folder.run(id_).read_experiment(), {"training.workers": 0})
    run = _new_run(folder, id_)
    console.print(f"trial {id_} → {run.path}", highlight=False, soft_wrap=True)
    torch.set_num_threads(_threads(folder))
    try:
        _train(Trial(experiment, seed), run, {row.epoch: row for row in record.epochs.get(id_, [])})
    except HarnessError as error:
        raise with_traceback(error)  # noqa: B904  (it is the same error)
    ended = record.ended.get(id_)
    if ended is not None and ended.error is not None:
        said = f"it failed in the study, and here it did not: {visible(ended.error)}"
        console.print(said, highlight=False, markup=False)


def find_trial(record: Record, word: str) -> str:
    """The id of a trial by its number in the study or by its id.

    Raises:
        StudyError: there is no such trial, or it never had an Experiment.
    """
    rows = record.ended
    id_ = next((row.trial for row in rows.values() if str(row.number) == word), word)
    if name_problem(id_) is None and record.folder.run(id_).experiment.exists():
        return id_
    if id_ in rows:
        why = rows[id_].error or "its run folder is gone"
        raise StudyError(f"trial {word} of study '{record.folder.name}' has no Experiment to run: {why}")
    numbers = sorted(row.number for row in rows.values())
    known = f"0 to {numbers[-1]}" if numbers else "no trial has ended yet"
    raise StudyError(
        f"study '{record.folder.name}' has no trial '{word}'; give a number ({known}) or the name of a folder in "
        f"{record.folder.path}/runs"
    )


def _train(trial: Trial, run: RunFolder, before: dict[int, EpochRow]) -> None:
    """Print a line for each epoch, beside what the study recorded."""
    from harness.engine import fit
    from harness.run.worker import pick_device

    epochs = trial.experiment.training.epochs
    for row in fit(trial, run, pick_device()):
        known = before.get(row.epoch)
        note = "" if known is None else " · as in the study" if _same(row, known) else f" · in the study {_line(known)}"
        console.print(f"epoch {row.epoch}/{epochs}  {_line(row)}{note}", highlight=False, soft_wrap=True)


def _line(row: EpochRow) -> str:
    train = "–" if row.train_loss is None else f"{row.train_loss:.5f}"
    return f"train loss {train}, val loss {row.val_loss:.5f}, score {row.score:.4f}"


def _same(row: EpochRow, known: EpochRow) -> bool:
    return (row.train_loss, row.val_loss, row.score) == (known.train_loss, known.val_loss, known.score)


def _new_run(folder: StudyFolder, id_: str) -> RunFolder:
    """A folder beside the trial's own: what it starts from (`run:...`) is looked for beside it."""
    runs = (folder.run(f"{id_}-rerun-{number}") for number in count(1))
    return next(run for run in runs if not run.path.exists())


def _seed(id_: str) -> int:
    digits = id_.partition("-s")[2].partition("-")[0]
    if not re.fullmatch("[0-9]{1,18}", digits):
        raise StudyError(f"'{id_}' is no trial: its name does not end in -s and a seed; give another folder of runs")
    return int(digits)


def _threads(folder: StudyFolder) -> int:
    """As many as the study's workers had: sums depend on it in their last bits."""
    from harness.store import read_provenance

    held = read_provenance(folder).get("resources") or {}
    return min(max(1, int(held.get("cpus_per_trial") or 1)), os.cpu_count() or 1)
