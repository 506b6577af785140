"""From command-line words to sections and resources."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from harness.cli.app import errors
from harness.config import Ablation, Experiment, Space, apply_overrides, parse_override, read_section
from harness.config.space import Strategy
from harness.errors import ConfigError
from harness.store import StudyFolder, checked_name, find_study, newest_study, results_folder

if TYPE_CHECKING:
    from harness.search.confirmation import Confirmation

_REPOSITORY = Path(__file__).resolve().parents[2]
DEFAULT_SPACE = _REPOSITORY / "search_spaces" / "default.yaml"
PUBLISHED = _REPOSITORY / "results" / "published"


def read_experiment(path: Path | None, data: Path | None, overrides: list[str]) -> Experiment:
    """An Experiment file (none: the default), with the data folder and overrides put in."""
    experiment = Experiment() if path is None else read_section(Experiment, path)
    return change_experiment(experiment, data, overrides)


def change_experiment(experiment: Experiment, data: Path | None, overrides: list[str]) -> Experiment:
    """An Experiment with the data folder and `path=value` overrides put in."""
    changes = {} if data is None else {"data.root": str(data)}
    return apply_overrides(experiment, changes | dict(parse_override(text) for text in overrides))


def read_space(
    path: Path | None,
    experiment: Path | None,
    data: Path | None,
    overrides: list[str],
    *,
    trials: int | None,
    max_epochs: int | None,
    strategy: Strategy | None = None,
) -> Space:
    """A Space file with the command line's choices put in."""
    space = read_section(Space, path or DEFAULT_SPACE)
    base = space.experiment if experiment is None else read_section(Experiment, experiment)
    if max_epochs is not None:
        overrides = [*overrides, f"training.epochs={max_epochs}"]
    base = change_experiment(base, data, overrides)
    given = {"trials": trials, "strategy": strategy}
    search = apply_overrides(space.search, {name: value for name, value in given.items() if value is not None})
    return space.model_copy(update={"experiment": base, "search": search})


def read_ablation(
    file: Path | None, search: str | None, rank: int | None, as_searched: bool = False
) -> tuple[Ablation, str]:
    """An ablation from its file, or the path to a search's best; and the name that it gives to its study."""
    if (file is None) == (search is None):
        given = "neither is given" if file is None else f"not both {file} and --path {search}"
        raise ConfigError(f"give either an ablation file, e.g. ablations/ignitia.yaml, or --path STUDY; {given}")
    if file is not None:
        if rank is not None:
            raise ConfigError(f"--rank {rank} goes with --path STUDY; leave it out for {file}")
        if as_searched:
            raise ConfigError(f"--as-searched goes with --path STUDY; leave it out for {file}")
        return read_section(Ablation, file), file.stem
    # optuna takes a second to import, which a file need not pay
    from harness.search import path_factors

    folder = find_study(search)
    confirmation = None if as_searched else standing_confirmation(folder)
    if confirmation is not None:
        say_confirmed(confirmation, rank or 1, "--as-searched takes the search's own ranking")
    return path_factors(folder, rank or 1, confirmation), f"path-{folder.name}"


def change_ablation(ablation: Ablation, scale: str, data: Path | None, overrides: list[str]) -> Ablation:
    """An ablation whose scale also puts the data folder and overrides over every arm."""
    if scale not in ablation.scale:
        raise ConfigError(f"--scale {scale}: this ablation has {', '.join(ablation.scale)}; give one of them")
    changes = {} if data is None else {"data.root": str(data)}
    changes |= dict(parse_override(text) for text in overrides)
    # last, in their own order: one may be valid only after another
    kept = {path: value for path, value in ablation.scale[scale].set.items() if path not in changes}
    changed = ablation.scale[scale].model_copy(update={"set": kept | changes})
    return ablation.model_copy(update={"scale": ablation.scale | {scale: changed}})


def chosen_study(name: str | None) -> StudyFolder:
    """The study of a name or path; without one the newest of the results folder, which is said.

    Raises:
        StudyError: there is none.
    """
    if name is not None:
        return find_study(name)
    folder = newest_study()
    errors.print(f"study {folder.name}, the newest in {folder.path.parent}", highlight=False, soft_wrap=True)
    return folder


def standing_confirmation(folder: StudyFolder) -> Confirmation | None:
    """The confirmation whose ranking stands for that of a search; none where there is none, or no search.

    Raises:
        StudyError, ConfigError: a damaged confirmation.
    """
    # optuna takes a second to import
    from harness.search.confirmation import is_confirmed, read_confirmation

    confirmation = read_confirmation(folder)
    return confirmation if is_confirmed(confirmation) else None


def say_confirmed(confirmation: Confirmation, rank: int, otherwise: str) -> None:
    """One line beside the output: the trial is that of the confirmed ranking; `otherwise`: how to have another."""
    said = f"rank {rank} by fresh seeds ({confirmation.folder.path}); {otherwise}"
    errors.print(said, highlight=False, soft_wrap=True)


def study_folder(name: str | None, stem: str) -> StudyFolder:
    """The folder of a new study; without a name, the stem and the time."""
    return StudyFolder(results_folder() / checked_name(name or f"{stem}-{datetime.now():%Y%m%d-%H%M%S}"))
