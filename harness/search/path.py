"""From a search to an ablation: what its winner changed in the default Experiment, as factors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from harness.config import Ablation, Experiment, SearchSettings, Space, apply_overrides, read_section, to_overrides
from harness.config.ablation import Factor, Path
from harness.config.space import Scalar
from harness.errors import StudyError
from harness.search.confirmation import Confirmation, confirmed_at
from harness.search.default import default_label
from harness.search.search import ranked
from harness.store import StudyFolder

Picked = Mapping[str, Scalar]


def path_factors(folder: StudyFolder, rank: int, confirmation: Confirmation | None = None) -> Ablation:
    """The path from a search's default Experiment to that of rank `rank` (from 1): one factor for each change.

    A factor is named after its parameter. What depends on a changed parameter, or sets a field of what that one
    replaces whole, belongs to its factor; so all factors together give the ranked Experiment.

    Args:
        confirmation: whose ranking counts; none: the search's own.

    Raises:
        StudyError: there are fewer ranked trials, or the Experiment has fewer than two changes.
        ConfigError: the folder holds no search.
    """
    space = read_section(SearchSettings, folder.settings).space
    picked = (confirmed_at(confirmation, rank).row if confirmation else ranked(folder, rank)).picked
    factors = {group[0]: Factor(set=_overrides(space, picked, group)) for group in _groups(space, picked)}
    if len(factors) < 2:
        raise StudyError(
            f"rank {rank} of study '{folder.name}' differs from the default Experiment in "
            f"{', '.join(factors) or 'nothing'}; a path needs two changes or more: give another --rank"
        )
    return Ablation(experiment=space.experiment, factors=factors, design=Path())


def _groups(space: Space, picked: Picked) -> list[list[str]]:
    """The changed parameters, each with those that go with it, in the order of the space."""
    groups: list[list[str]] = []
    for name in (name for name in space.parameters if name in picked):
        above = [group for group in groups if any(_goes_with(space, name, other) for other in group)]
        if above or _changes(space, picked, name):
            groups = [group for group in groups if group not in above]
            groups.append([*(member for group in above for member in group), name])
    return [group for group in groups if _applied(space, picked, group) != space.experiment]


def _goes_with(space: Space, name: str, other: str) -> bool:
    """Whether a parameter exists only for, or only inside, what another one sets."""
    parameter = space.parameters[name]
    return other in parameter.when or parameter.field.startswith(f"{space.parameters[other].field}.")


def _changes(space: Space, picked: Picked, name: str) -> bool:
    """Whether a parameter has another value than the default Experiment, or replaces more than its name says."""
    if default_label(space, name) != picked[name]:
        return True
    inside = [n for n in picked if space.parameters[n].field.startswith(f"{space.parameters[name].field}.")]
    return _applied(space, picked, [name, *inside]) != _applied(space, picked, inside)


def _applied(space: Space, picked: Picked, names: Iterable[str]) -> Experiment:
    return apply_overrides(space.experiment, _overrides(space, picked, names))


def _overrides(space: Space, picked: Picked, names: Iterable[str]) -> dict:
    return to_overrides(space, {name: picked[name] for name in names})
