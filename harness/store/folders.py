"""The file names of a run and of a study, spelt once."""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from stat import S_ISDIR, S_ISLNK, S_ISREG

from harness.config import Experiment, Trial, dump_yaml, name_problem, printable, read_section, shortened
from harness.errors import StudyError
from harness.store.files import naming_what_fails, write_text
from harness.store.journal import Journal
from harness.store.rows import EpochRow, TrialRow

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunFolder:
    """What one trial writes."""

    path: Path

    @property
    def experiment(self) -> Path:
        return self.path / "experiment.yaml"

    @property
    def last(self) -> Path:
        """Checkpoint to resume from: model, optimiser and, in its header, everything else."""
        return self.path / "last.safetensors"

    @property
    def previous(self) -> Path:
        """The checkpoint before the last, in case that the last is damaged."""
        return self.path / "previous.safetensors"

    @property
    def notes(self) -> Path:
        """What people should know of a run that went on all the same, a line each."""
        return self.path / "notes.txt"

    @property
    def best(self) -> Path:
        """Weights of the best epoch."""
        return self.path / "best.safetensors"

    @property
    def confusion(self) -> Path:
        """Per-image validation confusion matrices of the best epoch, int64 (N C C+1)."""
        return self.path / "confusion.npz"

    @property
    def test_confusion(self) -> Path:
        """Per-image test confusion matrices of the best weights, where they were asked for."""
        return self.path / "confusion-test.npz"

    def frozen(self, digest: str) -> Path:
        """Weights of an encoder that never trains, shared by the runs beside this one."""
        return self.path.parent / "frozen" / f"{checked_name(digest)}.safetensors"

    def create(self, trial: Trial) -> None:
        """Make the folder and write the Experiment; a folder that is there stays as it is.

        Raises:
            StorageError: it cannot be written.
        """
        with naming_what_fails(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        if not self.experiment.exists():
            write_text(self.experiment, experiment_text(trial.experiment, f"trial {trial.id}, seed {trial.seed}"))

    def note(self, text: str) -> None:
        """Say something about a run that goes on all the same: as a warning, and in a file that stays.

        Raises:
            StorageError: it cannot be written.
        """
        _log.warning("%s: %s", self.path, text)
        with naming_what_fails(self.path), open(self.notes, "a", encoding="utf-8") as file:
            file.write(f"{datetime.now():%Y-%m-%d %H:%M:%S} {text}\n")

    def read_experiment(self) -> Experiment:
        """The Experiment of a finished or interrupted run.

        Raises:
            StudyError: there is no run here.
        """
        if not self.experiment.exists():
            raise StudyError(
                f"{self.path}: no run here ({self.experiment.name} is missing); "
                "give a folder such as results/STUDY/runs/TRIAL"
            )
        return read_section(Experiment, self.experiment)


@dataclass(frozen=True)
class StudyFolder:
    """What one study writes."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def settings(self) -> Path:
        """Everything that was asked for, resolved."""
        return self.path / "study.yaml"

    @property
    def provenance(self) -> Path:
        return self.path / "provenance.json"

    @property
    def best(self) -> Path:
        return self.path / "best.yaml"

    @property
    def optuna(self) -> Path:
        return self.path / "optuna.db"

    @property
    def trials(self) -> Journal[TrialRow]:
        return Journal(self.path / "trials.jsonl", TrialRow)

    @property
    def epochs(self) -> Journal[EpochRow]:
        return Journal(self.path / "epochs.jsonl", EpochRow)

    @property
    def tiles(self) -> Path:
        """Pictures of a few frames, a folder for image, truth and each run that is shown."""
        return self.path / "tiles"

    @property
    def undrawn(self) -> Path:
        """Why there are no such pictures, where drawing them was tried."""
        return self.path / "tiles-missing.txt"

    def run(self, trial_id: str) -> RunFolder:
        return RunFolder(self.path / "runs" / checked_name(trial_id))


def experiment_text(experiment: Experiment, *comments: str) -> str:
    """An Experiment as YAML under comment lines."""
    head = "".join(f"# {printable(line)}\n" for line in comments)
    return head + dump_yaml(experiment.model_dump(mode="json"))


def results_folder() -> Path:
    """Where studies are written: $HARNESS_RESULTS, or `results` in the working directory."""
    return Path(os.environ.get("HARNESS_RESULTS") or "results")


def checked_name(name: str) -> str:
    """A name that a file or a person gave, before it becomes part of a path.

    Raises:
        StudyError: it would lead to another folder, or cannot be a file's name.
    """
    problem = name_problem(name) if isinstance(name, str) else "no text"
    if problem:
        raise StudyError(
            f"{shortened(name)} cannot be the name of a study or of something in it: {problem}; a name has no '/', no "
            "line break and 1 to 200 bytes. Where a file of a study holds it, restore that file"
        )
    return name


def check_links(folder: Path) -> None:
    """Look for what would have us read or write elsewhere: links that lead out of a folder, pipes, devices.

    Raises:
        StudyError: there is one.
    """
    root = Path(os.path.realpath(folder))
    for place, folders, files in os.walk(folder):
        for path in (os.path.join(place, name) for name in (*folders, *files)):
            with suppress(FileNotFoundError):  # whoever runs the study writes and removes files
                mode = os.lstat(path).st_mode
                if S_ISREG(mode) or S_ISDIR(mode):
                    continue
                if not (S_ISLNK(mode) and Path(os.path.realpath(path)).is_relative_to(root)):
                    raise StudyError(
                        f"{shortened(path)}: a link that leads out of {folder}, or no file; put a copy of what it "
                        "points to in its place, or remove it"
                    )


def given_run(path: Path) -> RunFolder | None:
    """The run that a person named by its folder; None where it is none.

    Raises:
        StudyError: something in it, or in the study that it belongs to, leads out of it.
    """
    run = RunFolder(path)
    if not run.experiment.exists():
        return None
    check_links(path.absolute().parents[1] if path.absolute().parent.name == "runs" else path)
    return run


def find_study(name: str) -> StudyFolder:
    """A study by its name under the results folder, or by its path.

    Raises:
        StudyError: there is none, or something in it leads out of it.
    """
    for path in (Path(name), results_folder() / name):
        if (path / "study.yaml").exists():
            check_links(path)
            return StudyFolder(path)
    known = sorted(p.parent.name for p in results_folder().glob("*/study.yaml"))
    raise StudyError(
        f"study '{name}' does not exist: neither {name}/study.yaml nor {results_folder() / name}/study.yaml "
        f"is there; known studies: {', '.join(known) or 'none'}"
    )


def newest_study() -> StudyFolder:
    """The study of the results folder that was begun, or resumed, last.

    Raises:
        StudyError: there is none, or something in it leads out of it.
    """
    settings = results_folder().glob("*/study.yaml")
    newest = max(settings, key=lambda path: (path.stat().st_mtime_ns, path.parent.name), default=None)
    if newest is None:
        raise StudyError(
            f"there is no study in {results_folder()}; start one, e.g. `harness search`, give the path of one, or name "
            "its folder by HARNESS_RESULTS"
        )
    return find_study(str(newest.parent))
