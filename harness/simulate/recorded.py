"""Learning curves replayed from a study on disk."""

from __future__ import annotations

import numpy as np

from harness.config import SearchSettings, Space, read_section
from harness.config.space import ChoiceParameter
from harness.errors import StudyError
from harness.search.values import Picked, position
from harness.simulate.curves import Curve
from harness.store import EpochRow, Record, StudyFolder

#: complete trials from which a stopped one's missing epochs can be told
MIN_COMPLETE = 2


class RecordedCurves:
    """Each values' curve is that of the *nearest recorded trial* (no regression: every curve did happen).

    Distance is the mean over parameters (Gower, Biometrics 1971): 0 or 1 for a choice, the difference of positions in
    the range for a number, 1 where only one of the two has it. A trial that was stopped goes on as the nearest complete
    one did: by the same steps from epoch to epoch. Recorded scores hold validation noise already, so the true score is
    the observed one, and values drawn twice bring the same curve with every seed.

    Raises:
        StudyError: the study has fewer than two complete trials.
    """

    def __init__(self, folder: StudyFolder) -> None:
        self.space: Space = read_section(SearchSettings, folder.settings).space
        self.epochs = self.space.experiment.training.epochs
        record = Record(folder)
        ended = [row for row in record.ended.values() if row.outcome != "failed" and row.epochs]
        complete = [row for row in ended if row.outcome == "complete" and row.epochs == self.epochs]
        if len(complete) < MIN_COMPLETE:
            raise StudyError(
                f"study '{folder.name}' has {len(complete)} trials that ran all {self.epochs} epochs; a replay needs "
                f"{MIN_COMPLETE}: let it go on, or simulate its space (`harness simulate SPACE.yaml`)"
            )
        self.picked: list[Picked] = [row.picked for row in ended]
        rows = [[r for r in record.epochs[row.trial] if r.epoch > 0] for row in ended]
        whole = [(row.picked, _scores(record.epochs[row.trial])) for row in complete]
        self.curves = [self._curve(row.picked, r, whole) for row, r in zip(ended, rows, strict=True)]

    def curve(self, picked: Picked, seed: int) -> Curve:
        """The curve of the nearest recorded trial, the earliest of equally near ones."""
        return self.curves[int(np.argmin([self._distance(picked, other) for other in self.picked]))]

    def _curve(self, picked: Picked, rows: list[EpochRow], whole: list[tuple[Picked, np.ndarray]]) -> Curve:
        scores = _scores(rows)
        model = min(whole, key=lambda other: self._distance(picked, other[0]))[1]
        scores = np.concatenate([scores, scores[-1] + model[len(scores) :] - model[len(scores) - 1]])
        return Curve(scores, scores, float(np.mean([r.seconds for r in rows])))

    def _distance(self, one: Picked, other: Picked) -> float:
        return float(np.mean([_apart(self.space, name, one, other) for name in self.space.parameters]))


def _apart(space: Space, name: str, one: Picked, other: Picked) -> float:
    if name not in one or name not in other:
        return float((name in one) != (name in other))
    parameter = space.parameters[name]
    if isinstance(parameter, ChoiceParameter):
        return float(one[name] != other[name])
    return abs(position(parameter, one[name]) - position(parameter, other[name]))


def _scores(rows: list[EpochRow]) -> np.ndarray:
    return np.array([row.score for row in rows if row.epoch > 0])
