"""Plots of what each arm did epoch by epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from harness.report.ablation_shared import rule_of
from harness.report.plot_shapes import INK, Chart, LeftOut, LineChart, Panel, Point, Series
from harness.report.plot_style import GROUPS, TRAINING, VALIDATION, class_colours, file_names, listed, short
from harness.report.records import AblationRecords
from harness.store import EpochRow

#: what a row says of an epoch, and the colour of its line
Line = tuple[Callable[[EpochRow], float | None], str]


def training_curves(records: AblationRecords) -> list[Chart | LeftOut]:
    """For each arm its loss, score, learning rates and class IoUs over epochs, with the best epoch of each seed."""
    names = file_names("curves", records.epochs)
    return [_curves(records, arm, name) for arm, name in names.items()]


def learning_rates(records: AblationRecords) -> Chart | LeftOut:
    """The learning rate of each parameter group over epochs, a panel for the arms that share a schedule."""
    runs = {arm: max(by_seed.values(), key=len) for arm, by_seed in records.epochs.items()}
    arms_of: dict[tuple[tuple[int, tuple[tuple[str, float], ...]], ...], list[str]] = {}
    for arm, rows in runs.items():
        arms_of.setdefault(tuple((row.epoch, tuple(row.lr.items())) for row in rows if row.epoch > 0), []).append(arm)
    alike = [arms for rates, arms in arms_of.items() if rates]
    if not alike:
        return LeftOut("learning_rates", "no arm trains")
    colours = _group_colours(list(dict.fromkeys(g for arms in alike for g in runs[arms[0]][-1].lr)))
    panels = [
        Panel(_some(arms), tuple(_rate_lines([runs[arms[0]]], colours)), "epoch", "learning rate", log=True)
        for arms in alike
    ]
    shared = tuple(f"{_some(arms)}: {listed(arms)}." for arms in alike if len(arms) > 1)
    notes = ("The seed that ran longest. A gap: the rate is 0, the group stands still.", *shared)
    title = "Learning rate of each parameter group"
    return LineChart("learning_rates", title, tuple(panels), min(3, len(panels)), shared=True, notes=notes)


def _curves(records: AblationRecords, arm: str, name: str) -> Chart | LeftOut:
    runs = [rows for rows in records.epochs[arm].values() if _trains(rows)]
    if not runs:
        return LeftOut(name, f"arm '{arm}' trains for 0 epochs")
    trials = records.trials[arm].values()
    best = [(t.best_epoch, t.score) for t in trials if t.best_epoch is not None]
    at_best = [(r.epoch, r.val_loss) for t in trials for r in records.epochs[arm][t.seed] if r.epoch == t.best_epoch]
    panels = (
        _panel("Loss", "loss", runs, _LOSSES, at_best),
        _panel("Score", _score_name(records, arm), runs, _score_lines(runs), best),
        _rates_panel(runs),
        _classes_panel(records, runs),
    )
    several = f"{len(runs)} seeds: thin lines; bold: their mean. " if len(runs) > 1 else ""
    notes = (f"{several}Dots: the best epoch{' of each seed' if several else ''}.",)
    return LineChart(name, f"Training of {arm}", panels, 2, notes=notes)


def _panel(
    title: str,
    y_title: str,
    runs: list[list[EpochRow]],
    lines: Mapping[str, Line],
    best: Iterable[tuple[int, float]],
) -> Panel:
    drawn = [s for name, (value, colour) in lines.items() for s in _lines(name, runs, value, colour)]
    dots = Series("best epoch", tuple(Point(at, value) for at, value in best), INK, "dot")
    return Panel(title, (*drawn, dots), "epoch", y_title, ends=True)


def _score_lines(runs: list[list[EpochRow]]) -> dict[str, Line]:
    lines = {"validation": (_val_score, VALIDATION)}
    if any(row.train_score is not None for rows in runs for row in rows):
        lines = {"train": (_train_score, TRAINING)} | lines
    return lines


def _rates_panel(runs: list[list[EpochRow]]) -> Panel:
    groups = list(dict.fromkeys(g for rows in runs for g in rows[-1].lr))
    lines = tuple(_rate_lines(runs, _group_colours(groups)))
    return Panel("Learning rate", lines, "epoch", "rate", log=True, ends=True)


def _rate_lines(runs: list[list[EpochRow]], colours: Mapping[str, str]) -> list[Series]:
    return [
        s
        for group, colour in colours.items()
        if any(group in row.lr for rows in runs for row in rows)
        for s in _lines(group, runs, lambda row, g=group: row.lr.get(g) or np.nan, colour)
    ]


def _classes_panel(records: AblationRecords, runs: list[list[EpochRow]]) -> Panel:
    colours = class_colours_of(records)
    lines = [
        s
        for name in runs[0][-1].iou
        for s in _lines(name, runs, lambda row, n=name: row.iou.get(n), colours.get(name, INK))
        if s.style == "line" and s.points
    ]
    return Panel("IoU of each class, mean", tuple(lines), "epoch", "validation IoU (0–1)", ends=True)


def _lines(
    name: str, runs: list[list[EpochRow]], value: Callable[[EpochRow], float | None], colour: str
) -> list[Series]:
    """A thin line for each seed and a bold one for their mean, as far as every seed ran."""
    values = [{row.epoch: v for row in rows if (v := value(row)) is not None} for rows in runs]
    shared = sorted(set.intersection(*(set(own) for own in values)))
    mean = tuple(Point(epoch, float(np.mean([own[epoch] for own in values]))) for epoch in shared)
    thin = [Series(name, tuple(Point(e, v) for e, v in own.items()), colour, "thin") for own in values]
    return [*(thin if len(runs) > 1 else []), Series(name, mean, colour, "line")]


def _train_loss(row: EpochRow) -> float | None:
    return row.train_loss


def _val_loss(row: EpochRow) -> float | None:
    return row.val_loss


_LOSSES: dict[str, Line] = {"train": (_train_loss, TRAINING), "validation": (_val_loss, VALIDATION)}


def _val_score(row: EpochRow) -> float | None:
    return row.score


def _train_score(row: EpochRow) -> float | None:
    return row.train_score


def _some(arms: Sequence[str]) -> str:
    return arms[0] if len(arms) == 1 else f"{short(arms[0], 18)} + {len(arms) - 1} alike"


def _trains(rows: Sequence[EpochRow]) -> bool:
    return any(row.epoch > 0 for row in rows)


def chosen_on_test(records: AblationRecords, arms: Iterable[str]) -> tuple[str, ...]:
    """A note where an arm's validation frames are the test frames."""
    found = [arm for arm in arms if records.arms[arm].experiment.protocol.select_on_test]
    return (f"Best epoch chosen and scored on the test frames: {listed(found)}.",) if found else ()


def _score_name(records: AblationRecords, arm: str) -> str:
    rule = rule_of(records, arm)
    return "mIoU (0–1)" if rule == "miou" else f"{rule} (0–1)"


def _group_colours(groups: Sequence[str]) -> dict[str, str]:
    return {group: GROUPS[i % len(GROUPS)] for i, group in enumerate(groups)}


def class_colours_of(records: AblationRecords) -> dict[str, str]:
    """The colour of every class of every arm."""
    return {k: v for arm in records.arms.values() for k, v in class_colours(arm.experiment).items()}
