"""Searched values that changed nothing: two trials that differ in them and have the same losses to the last bit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from harness.config import (
    Experiment,
    SearchSettings,
    apply_overrides,
    differences,
    printable,
    read_section,
    to_overrides,
)
from harness.store import EpochRow, Record, StudyFolder, TrialRow

#: fields and sections that may rightly leave the losses of the first epochs as they are: they act later, or on the
#: score, the speed and the end of a training
LATER = (
    "schedule",
    "training.epochs",
    "training.patience",
    "training.cached_views",
    "training.workers",
    "training.deterministic",
    "training.compile",
    "training.score_training_set",
    "evaluation.batch_size",
    "evaluation.tta",
    "evaluation.suppress",
    "evaluation.score_test",
    "protocol.score",
    "protocol.reset_best",
)
_SHOWN = 5
_MISSING = "–"


@dataclass(frozen=True)
class Unreached:
    """Two trials, the epochs that both ran, and what they differ in: parameter to its two values."""

    first: TrialRow
    second: TrialRow
    epochs: int
    parameters: dict[str, tuple[Any, Any]]


def find_unreached(
    trials: Sequence[TrialRow],
    epochs: Mapping[str, Sequence[EpochRow]],
    experiment_of: Callable[[TrialRow], Experiment],
) -> list[Unreached]:
    """Pairs of trials with other Experiments and bit-identical losses, in the order of their numbers.

    Compared are the training and validation losses of every epoch from 1 that both ran. Early stopping leaves many
    pairs with no more than epoch 1, in which a schedule's end or the number of epochs cannot act; so a pair is a fault
    only where the Experiments differ in a field outside `LATER`. Losses that are equal by right are still possible:
    a clipping norm that no gradient reached; whoever searches it wants to know. A trial is paired with the first of
    its kind, so that n equal trials are n - 1 pairs.
    """
    found, seen = [], set()
    for first, second in _same_first_losses(sorted(trials, key=lambda row: row.number), epochs):
        if second.trial in seen:
            continue
        shared = _shared(epochs[first.trial], epochs[second.trial])
        if any(one != other for one, other in shared):
            continue
        fields = [text.partition(": ")[0] for text in differences(experiment_of(first), experiment_of(second))]
        if any(not _is_later(field) for field in fields):
            seen.add(second.trial)
            found.append(Unreached(first, second, len(shared), _differing(first.picked, second.picked)))
    return found


def unreached(folder: StudyFolder) -> RenderableType | None:
    """What a search's trials say of values that reached nothing; none where every value changed something."""
    space = read_section(SearchSettings, folder.settings).space
    record = Record(folder)
    # values that make no Experiment have no epochs, so none is asked for here
    found = find_unreached(
        list(record.ended.values()),
        record.epochs,
        lambda row: apply_overrides(space.experiment, to_overrides(space, row.picked)),
    )
    if not found:
        return None
    more = [Text(f"and {len(found) - _SHOWN} more pairs", "dim")] if len(found) > _SHOWN else []
    return Group(
        Text(),
        Text("searched values that changed nothing", "bold yellow"),
        *(Text(printable(_sentence(pair))) for pair in found[:_SHOWN]),
        *more,
        Text("Such a parameter does not reach the training, or nothing that it acts on was there.", "dim"),
    )


def _same_first_losses(
    trials: Sequence[TrialRow], epochs: Mapping[str, Sequence[EpochRow]]
) -> Iterator[tuple[TrialRow, TrialRow]]:
    groups: dict[tuple[float | None, float], list[TrialRow]] = {}
    for row in trials:
        if (losses := _losses(epochs.get(row.trial, []))).get(1) is not None:
            groups.setdefault(losses[1], []).append(row)
    for group in groups.values():
        yield from combinations(group, 2)


def _losses(rows: Sequence[EpochRow]) -> dict[int, tuple[float | None, float]]:
    """Training and validation loss by epoch; epoch 0 is the same for all that start from the same weights."""
    return {row.epoch: (row.train_loss, row.val_loss) for row in rows if row.epoch > 0}


def _shared(first: Sequence[EpochRow], second: Sequence[EpochRow]) -> list[tuple[Any, Any]]:
    one, other = _losses(first), _losses(second)
    return [(one[epoch], other[epoch]) for epoch in one if epoch in other]


def _is_later(field: str) -> bool:
    return any(field == path or field.startswith(f"{path}.") for path in LATER)


def _differing(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    values = {name: (first.get(name, _MISSING), second.get(name, _MISSING)) for name in {**first, **second}}
    return {name: pair for name, pair in values.items() if pair[0] != pair[1]}


def _sentence(pair: Unreached) -> str:
    differ = ", ".join(f"{name} ({one} / {other})" for name, (one, other) in pair.parameters.items())
    epochs = "epoch 1, the only one" if pair.epochs == 1 else f"all {pair.epochs} epochs"
    return (
        f"trials {pair.first.number} and {pair.second.number} have the same losses to the last bit in {epochs} that "
        f"both ran, and differ in {differ}"
    )
