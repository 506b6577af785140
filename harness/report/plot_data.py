"""Everything that the plots of an ablation show, computed once."""

from __future__ import annotations

from harness.report.plot_classes import class_bars, class_journey, class_shares, validation_and_test
from harness.report.plot_comparisons import Comparisons
from harness.report.plot_effects import (
    delta_map,
    forest,
    returns,
    rules,
    shapley_bars,
    waterfall,
)
from harness.report.plot_runs import learning_rates, training_curves
from harness.report.plot_shapes import LeftOut, PlotData
from harness.report.records import AblationRecords

_OF_RUNS = (class_bars, validation_and_test, class_journey, class_shares, learning_rates)
_OF_EFFECTS = (waterfall, forest, shapley_bars, delta_map, rules, returns)


def plot_data(records: AblationRecords) -> PlotData:
    """Every plot that the records allow, what matters most first, and why the others are left out.

    Raises StudyError as `compare` and `attribute` do.
    """
    study = Comparisons(records)
    made = [
        *(build(study) for build in _OF_EFFECTS),
        *(build(records) for build in _OF_RUNS),
        *training_curves(records),
    ]
    return PlotData(
        records.folder.name,
        tuple(m for m in made if not isinstance(m, LeftOut)),
        tuple(m for m in made if isinstance(m, LeftOut)),
    )
