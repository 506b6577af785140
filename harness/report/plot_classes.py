"""Plots of what each arm scores on each class, and of what the classes are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from harness.metrics import counts, iou, miou
from harness.report.plot_runs import chosen_on_test, class_colours_of
from harness.report.plot_shapes import (
    INK,
    MUTED,
    Chart,
    LeftOut,
    LineChart,
    Panel,
    Point,
    RowChart,
    Series,
    point,
)
from harness.report.plot_style import TEST, VALIDATION, listed, plural
from harness.report.records import AblationRecords
from harness.stats import RESAMPLES, SEEDS_FOR_T, Estimate, bootstrap_weights, mean_interval, percentile_interval

BySeed = Mapping[int, NDArray[np.int64]]

#: arms up to which a panel for each class stays readable
MOST_ROWS = 24
_MEAN = "mIoU"


def class_bars(records: AblationRecords) -> Chart | LeftOut:
    """Validation IoU of each class, arms side by side."""
    found = {arm: class_estimates(m, records.classes(arm)) for arm, m in records.matrices.items()}
    missing = _no_rows(found, "validation confusion matrices")
    if missing:
        return LeftOut("class_iou", missing)
    colours = class_colours_of(records)
    panels = [
        Panel(name, (Series("", _rows(found, name, label=True), colours.get(name, INK), "bar"),))
        for name in _panel_names(found)
    ]
    return RowChart(
        "class_iou",
        "Validation IoU of each class",
        "IoU (0–1)",
        tuple(found),
        tuple(panels),
        _columns(panels),
        limits=(0.0, 1.0),
        notes=(_interval_note(records.matrices), *chosen_on_test(records, found)),
    )


def validation_and_test(records: AblationRecords) -> Chart | LeftOut:
    """IoU of each class on validation and on test frames, arm by arm."""
    both = [arm for arm in records.matrices if arm in records.test_matrices]
    missing = _no_rows(both, "test confusion matrices (evaluation.score_test)")
    if missing:
        return LeftOut("validation_test", missing)
    sets = {"validation": records.matrices, "test": records.test_matrices}
    found = {k: {arm: class_estimates(m[arm], records.classes(arm)) for arm in both} for k, m in sets.items()}
    panels = [
        Panel(
            name,
            (
                Series("", _gaps(found["validation"], found["test"], name), MUTED, "connector"),
                Series("validation", _rows(found["validation"], name), VALIDATION, "speck"),
                Series("test", _rows(found["test"], name), TEST, "ring"),
            ),
        )
        for name in _panel_names(found["validation"])
    ]
    return RowChart(
        "validation_test",
        "IoU of each class on validation and test frames",
        "IoU (0–1)",
        tuple(both),
        tuple(panels),
        _columns(panels),
        limits=(0.0, 1.0),
        notes=(
            "Mean over seeds, weights of the best epoch.",
            *_absent(found["test"]),
            *chosen_on_test(records, both),
        ),
    )


def class_journey(records: AblationRecords) -> Chart | LeftOut:
    """Validation IoU of each class from rung to rung of a ladder."""
    if records.rungs is None:
        return LeftOut("class_journey", "the design is no ladder")
    rungs = [arm for arm in records.rungs if arm in records.matrices]
    if len(rungs) < 2:
        return LeftOut("class_journey", f"{plural(len(rungs), 'rung')} with confusion matrices; 2 are needed")
    found = {arm: class_estimates(records.matrices[arm], records.classes(arm)) for arm in rungs}
    colours = class_colours_of(records)
    lines = tuple(
        Series(
            name,
            tuple(_at(i, found[arm].get(name)) for i, arm in enumerate(rungs)),
            colours.get(name, INK),
            "line",
        )
        for name in _panel_names(found)
    )
    panel = Panel("", lines, "", "validation IoU (0–1)", ticks=tuple(rungs), ends=True)
    notes = ("Mean over seeds.", *chosen_on_test(records, rungs))
    return LineChart("class_journey", "Each class along the ladder", (panel,), notes=notes)


def class_shares(records: AblationRecords) -> Chart | LeftOut:
    """How often each class is in the truth of the validation and the test frames."""
    arm = next((a for a in (records.baseline, *records.matrices) if a in records.matrices), None)
    if arm is None:
        return LeftOut("class_shares", "no arm has validation confusion matrices")
    names, colours = records.classes(arm), class_colours_of(records)
    shares = {"validation": _shares(records.matrices[arm])}
    if arm in records.test_matrices:
        shares["test"] = _shares(records.test_matrices[arm])
    styles = {"validation": "bar", "test": "outline"}
    series = [
        Series(split, (Point(name, value, label=_percent(value)),), colours.get(name, INK), styles[split])
        for split, values in shares.items()
        for name, value in zip(names, values, strict=True)
    ]
    notes = ["Filled: validation; hollow: test."] if "test" in shares else []
    notes.append(f"Labelled pixels of arm {arm}, at the raster of its score.")
    return RowChart(
        "class_shares",
        f"Class distribution, {listed(list(shares))}",
        "share of the labelled pixels, %",
        names,
        (Panel("", tuple(series)),),
        notes=tuple(notes),
    )


def class_estimates(by_seed: BySeed, names: Sequence[str]) -> dict[str, Estimate]:
    """IoU of each class and their mean, mean over seeds, 0-1; a class that the truth lacks is nan.

    `by_seed` holds matrices (N C C+1). The interval is Student's t over 3 seeds or more, else a bootstrap over images.
    """
    points = np.stack([_scores(m.sum(axis=0)) for m in by_seed.values()])
    if len(by_seed) >= SEEDS_FOR_T:
        found = [_t_interval(column) for column in points.T]
    else:
        draws = np.mean([_draws(m) for m in by_seed.values()], axis=0)
        found = [percentile_interval(p, d) for p, d in zip(points.mean(axis=0), draws.T, strict=True)]
    return dict(zip((*names, _MEAN), found, strict=True))


def _no_rows(arms: Sequence[str] | Mapping[str, object], what: str) -> str:
    """Why a plot with a row for each arm cannot be drawn; empty where it can."""
    if not arms:
        return f"no arm has {what}"
    return f"{len(arms)} arms are too many for rows; the heat map has them" if len(arms) > MOST_ROWS else ""


def _panel_names(found: Mapping[str, Mapping[str, Estimate]]) -> list[str]:
    """The classes that the truth of some arm holds, and the mean last."""
    known = dict.fromkeys(n for own in found.values() for n, e in own.items() if not np.isnan(e.point))
    return [*(name for name in known if name != _MEAN), _MEAN]


def _columns(panels: Sequence[Panel]) -> int:
    return (len(panels) + 1) // 2 if len(panels) > 3 else len(panels)


def _rows(found: Mapping[str, Mapping[str, Estimate]], name: str, label: bool = False) -> tuple[Point, ...]:
    kept = {arm: own[name] for arm, own in found.items() if name in own and not np.isnan(own[name].point)}
    return tuple(point(arm, e, label=f"{e.point:.2f}" if label else "") for arm, e in kept.items())


def _gaps(
    one: Mapping[str, Mapping[str, Estimate]], other: Mapping[str, Mapping[str, Estimate]], name: str
) -> tuple[Point, ...]:
    """Pairs of points to connect: an arm's value in both."""
    return tuple(p for a, b in zip(_rows(one, name), _rows(other, name), strict=False) if a.at == b.at for p in (a, b))


def _absent(found: Mapping[str, Mapping[str, Estimate]]) -> tuple[str, ...]:
    """A note on the classes that the test truth of every arm lacks, by which the two means differ."""
    names = [n for n in dict.fromkeys(n for own in found.values() for n in own) if n not in _panel_names(found)]
    if not names:
        return ()
    return (f"The truth of the test frames lacks {listed(names)}: its mIoU is a mean over fewer classes.",)


def _at(place: int, estimate: Estimate | None) -> Point:
    return Point(place, np.nan) if estimate is None else point(place, estimate)


def _shares(by_seed: BySeed) -> list[float]:
    """Share of each class in the labelled pixels, in per cent; the truth is the same for every seed."""
    truth = counts(next(iter(by_seed.values())).sum(axis=0)).truth
    return (100 * truth / max(1, truth.sum())).tolist()


def _percent(value: float) -> str:
    return "absent" if value == 0 else f"{value:.1f} %" if value >= 1 else f"{value:.2g} %"


def _scores(matrix: NDArray[np.integer]) -> NDArray[np.float64]:
    """IoU (..., C + 1) of each class and, last, their mean; nan where the truth lacks the class."""
    c = counts(matrix)
    return np.concatenate([np.where(c.truth > 0, iou(c), np.nan), miou(c)[..., None]], axis=-1)


def _draws(matrices: NDArray[np.int64]) -> NDArray[np.float64]:
    """Scores (resamples, C + 1) of resampled images; one image says nothing of others."""
    n, classes = len(matrices), matrices.shape[1]
    weights = bootstrap_weights(n, RESAMPLES, np.random.default_rng(0))
    if n == 1:
        return np.full((RESAMPLES, classes + 1), np.nan)
    return _scores((weights @ matrices.reshape(n, -1)).reshape(-1, classes, classes + 1))


def _t_interval(values: NDArray[np.float64]) -> Estimate:
    return Estimate(np.nan, np.nan, np.nan) if np.isnan(values).any() else mean_interval(values)


def _interval_note(matrices: Mapping[str, BySeed]) -> str:
    seeds = sorted({len(by_seed) for by_seed in matrices.values()})
    few, many = seeds[0] < SEEDS_FOR_T, seeds[-1] >= SEEDS_FOR_T
    kinds = ["a bootstrap over images"] * few + ["Student's t over seeds"] * many
    count = plural(seeds[0], "seed") if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]} seeds"
    return f"Mean over {count}; 95 % intervals: {' or '.join(kinds)}."
