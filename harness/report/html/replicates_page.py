"""The page of one Experiment trained with several seeds: mean and interval, curves, classes."""

from __future__ import annotations

import numpy as np

from harness.config import Experiment, ReplicateSettings, read_section
from harness.errors import StudyError
from harness.report.html.figured import Figured
from harness.report.html.pictures import pictures_section
from harness.report.html.sections import Block, Command, Fact, Facts, Page, Section, Words, rows_from
from harness.report.html.shared_sections import created, failures_section, hours, provenance_section, study_word
from harness.report.interactive import figure_of
from harness.report.pictured import pictured_runs
from harness.report.plot_shapes import INK, LineChart, Panel, Point, RowChart, Series
from harness.report.plot_style import class_colours, ordered_colours, plural
from harness.stats import mean_interval, spread
from harness.store import EpochRow, Record, StudyFolder, TrialRow, best_epoch


def replicates_page(folder: StudyFolder) -> Page:
    """Everything that the trainings of an Experiment say, their mean first.

    Raises:
        StudyError, ConfigError: the folder holds no such study.
    """
    settings = read_section(ReplicateSettings, folder.settings)
    if len(settings.arms) > 1:
        raise StudyError(
            f"{folder.path} trains {len(settings.arms)} Experiments, of which no mean is worth a page: it is the "
            f"confirmation of a search; `harness report {folder.path.parent}` shows it"
        )
    record = Record(folder)
    rows = sorted(record.ended.values(), key=lambda row: row.number)
    experiment = next(iter(settings.arms.values()))
    sections = [
        _answer_section(folder, rows, experiment),
        _figures_section(record, rows, experiment),
        pictures_section(folder, pictured_runs(folder)),
        failures_section(folder, rows),
        provenance_section(folder),
    ]
    about = ("Training", plural(len(rows), "seed"), created(folder))
    return Page(folder.name, tuple(filter(None, about)), tuple(s for s in sections if s is not None))


def _answer_section(folder: StudyFolder, rows: list[TrialRow], experiment: Experiment) -> Section:
    scores = [row.score for row in rows if row.score is not None and row.outcome == "complete"]
    spent, on_what = hours(folder, rows)
    epochs = sum(row.epochs for row in rows)
    cost = Fact("cost", spent, (on_what, f"{plural(len(rows), 'training')}, {epochs} epochs"))
    table = rows_from("Each seed", [_row(row) for row in rows])
    if not scores:
        none = Words("No training has run to its end, so there is no score yet.", "warning")
        return Section("answer", "The answer", (none, Facts((cost,)), table))
    blocks: list[Block] = [Facts((_mean(scores, experiment), cost)), table]
    if experiment.protocol.select_on_test:
        blocks.append(Words("The best epoch was chosen on the test frames: this is no score of new frames.", "warning"))
    if len(scores) > 1:
        blocks.append(Words("The interval says what another seed would change, not what other frames would.", "muted"))
    use = Command((f"harness evaluate {study_word(folder)} --split test",), "The best of them, on other frames:")
    return Section("answer", "The answer", (*blocks, use))


def _mean(scores: list[float], experiment: Experiment) -> Fact:
    rule = experiment.protocol.score
    term = "validation mIoU" if rule == "miou" else f"score ({rule})"
    mean, low, high = mean_interval(np.array(scores))
    if len(scores) == 1:
        return Fact(term, f"{mean:.4f}", ("one seed, so no interval; `--seeds 3` gives one",))
    between = f"95 % interval {low:.4f} to {high:.4f} (Student's t)"
    return Fact(term, f"{mean:.4f}", (f"mean of {len(scores)} seeds, spread {spread(np.array(scores)):.4f}", between))


def _row(row: TrialRow) -> dict[str, object]:
    return {
        "seed": row.seed,
        "outcome": row.outcome,
        "score": None if row.score is None else f"{row.score:.4f}",
        "best epoch": row.best_epoch,
        "epochs": row.epochs,
        "minutes": f"{row.seconds / 60:.1f}",
        "run": f"runs/{row.trial}",
    }


def _figures_section(record: Record, rows: list[TrialRow], experiment: Experiment) -> Section | None:
    runs = {row.seed: record.epochs[row.trial] for row in rows if record.epochs.get(row.trial)}
    if not runs:
        return None
    return Section("figures", "Figures", (_curves(runs), _classes(runs, experiment)))


def _curves(runs: dict[int, list[EpochRow]]) -> Figured:
    colours = dict(zip(runs, ordered_colours(len(runs)), strict=True))
    score = [_line(seed, [(r.epoch, r.score) for r in own], colours[seed]) for seed, own in runs.items()]
    loss = [_line(seed, [(r.epoch, r.val_loss) for r in own], colours[seed]) for seed, own in runs.items()]
    best = [best_epoch(own) for own in runs.values()]
    dots = Series("best epoch", tuple(Point(b.epoch, b.score) for b in best if b), INK, "dot")
    panels = (
        Panel("Score", (*score, dots), "epoch", "score (0–1)"),
        Panel("Validation loss", tuple(loss), "epoch", "loss"),
    )
    chart = LineChart("curves", "Training of each seed", panels, columns=2)
    words = "A line for each seed; dots mark the best epochs, whose weights are kept."
    return Figured("figure-curves", chart.title, words, figure_of(chart))


def _line(seed: int, values: list[tuple[int, float]], colour: str) -> Series:
    return Series(f"seed {seed}", tuple(Point(at, value) for at, value in values), colour, "line")


def _classes(runs: dict[int, list[EpochRow]], experiment: Experiment) -> Figured:
    """Mean IoU of each class at the seeds' best epochs, with its interval."""
    best = [row for own in runs.values() if (row := best_epoch(own)) is not None]
    values = {name: [v for row in best if (v := row.iou.get(name)) is not None] for name in best[0].iou}
    found = {name: mean_interval(np.array(own)) for name, own in values.items() if own}
    colours = class_colours(experiment)
    bars = [
        Series(name, (Point(name, e.point, e.low, e.high),), colours.get(name, INK), "bar") for name, e in found.items()
    ]
    # bars explain themselves by their rows, so no entry of a legend is needed
    panel = Panel("", tuple(Series("", b.points, b.colour, b.style) for b in bars))
    limits = (0.0, 1.0)
    title = "Validation IoU of each class"
    chart = RowChart("classes", title, "IoU (0–1)", tuple(found), (panel,), limits=limits)
    several = len(best) > 1
    interval = f"; lines: 95 % intervals over {len(best)} seeds" if several else ", one seed"
    missing = [name for name in values if name not in found]
    absent = f" Not in the truth: {', '.join(missing)}." if missing else ""
    words = f"At the best epoch of each seed{interval}.{absent}"
    rows = tuple(
        {"class": n, "IoU": e.point, "low": e.low, "high": e.high} if several else {"class": n, "IoU": e.point}
        for n, e in found.items()
    )
    return Figured("figure-classes", title, words, figure_of(chart), rows)
