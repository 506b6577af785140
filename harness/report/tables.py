"""Tables from rows and confusion matrices; neither torch nor ray."""

from __future__ import annotations

from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from harness.config import SearchSettings, printable, read_section, visible
from harness.config.space import Objective
from harness.metrics import (
    CONVENTIONS,
    accuracy,
    dataset_counts,
    dice,
    iou,
    mean_dice,
    miou,
    per_image_table,
    precision,
    recall,
    score_by_convention,
)
from harness.report.winner import among_which, named_above
from harness.stats import mean_interval, spread
from harness.store import Record, StudyFolder, TrialRow
from harness.store.front import front_of

_TOP = 5


def search_summary(folder: StudyFolder) -> RenderableType:
    """The winner, the runners-up, the default Experiment, and what early stopping saved."""
    record = Record(folder)
    settings = read_section(SearchSettings, folder.settings)
    ranking = record.ranking()
    if not ranking:
        return Text("no trial has ended with a score", "bold red")
    first = next((row for row in record.ended.values() if row.number == 0), None)
    return Group(
        Text(),
        _trial_table(ranking[:_TOP], first, list(settings.space.parameters)),
        *_front(record, settings.space.search.cost),
        Text(),
        _cost_line(record, settings.space.experiment.training.epochs),
        Text(_curse(ranking), "dim"),
        Text(f"winner  {folder.best}", "bold green"),
    )


def _curse(ranking: list[TrialRow]) -> str:
    if len(ranking) == 1:
        return "One training with one seed: how much of its score is luck is not known."
    return (
        f"Winner's curse: the first is the {among_which(ranking)} with one seed each, so its score is too high on "
        f"average; only fresh seeds, which had no say in the choice, tell by how much.{named_above(ranking)}"
    )


def _trial_table(best: list[TrialRow], first: TrialRow | None, names: list[str]) -> Table:
    """A column for each of the best trials and for trial 0, a row for each parameter."""
    columns = best + [first] * (first is not None and first not in best)
    table = Table(title="best trials", title_justify="left", title_style="bold", box=None, pad_edge=False)
    table.add_column("trial", no_wrap=True)
    for row in columns:
        table.add_column(str(row.number), style="green" if row is best[0] else "", overflow="fold")
    table.add_row("val mIoU", *(_number(row.score) for row in columns), style="bold")
    table.add_row("best epoch", *(f"{_show(row.best_epoch)} of {row.epochs}" for row in columns))
    table.add_row("outcome", *(row.outcome for row in columns))
    for name in names:
        table.add_row(name, *(_show(row.picked.get(name)) for row in columns))
    return table


def _front(record: Record, objective: Objective | None) -> list[RenderableType]:
    """With two objectives, the trials that no other beats; `harness export --rank` counts along them."""
    if objective is None:
        return []
    title = "front: no trial is as good in both and better in one; rank for `harness export --rank`"
    table = Table(box=None, pad_edge=False)
    for name in ("rank", "trial", "val mIoU", "parameters" if objective == "parameters" else "training ms/image"):
        table.add_column(name, justify="right")
    for rank, (row, cost) in enumerate(front_of(record, objective), 1):
        shown = f"{cost:,.0f}" if objective == "parameters" else f"{cost:.2f}"
        table.add_row(str(rank), str(row.number), _number(row.score), shown)
    return [Text(), Text(title, "bold"), table]


def _cost_line(record: Record, max_epochs: int) -> Text:
    rows = list(record.ended.values())
    stopped = sum(row.outcome == "stopped" for row in rows)
    epochs = sum(row.epochs for row in rows)
    seconds = sum(row.seconds for row in rows)
    infeasible = sum(row.outcome == "infeasible" for row in rows)
    broken = f", {infeasible} infeasible" if infeasible else ""
    return Text(
        f"{len(rows)} trials, {stopped} stopped early{broken}; {epochs} epochs instead of {len(rows) * max_epochs}; "
        f"{seconds / 60:.1f} minutes of training and validation"
    )


def replicates_summary(folder: StudyFolder) -> RenderableType:
    """Each seed's best epoch, and their mean with a 95 % interval."""
    record = Record(folder)
    rows = sorted(record.ended.values(), key=lambda row: row.number)
    table = Table(title="seeds", title_justify="left", title_style="bold", box=None, pad_edge=False)
    for name in ("seed", "val mIoU", "best epoch", "epochs", "seconds", "run"):
        table.add_column(name, justify="left" if name == "run" else "right", overflow="fold")
    for row in rows:
        table.add_row(
            str(row.seed),
            _number(row.score),
            _show(row.best_epoch),
            str(row.epochs),
            f"{row.seconds:.0f}",
            str(folder.run(row.trial).path) if row.error is None else visible(row.error),
        )
    scores = [row.score for row in rows if row.score is not None and row.outcome == "complete"]
    return Group(table, _mean_line(scores)) if scores else table


def _mean_line(scores: list[float]) -> Text:
    mean, low, high = mean_interval(np.array(scores))
    if len(scores) == 1:
        return Text(f"val mIoU {mean:.4f}, one seed: no interval", "bold")
    return Text(
        f"val mIoU {mean:.4f}, 95 % interval {low:.4f} to {high:.4f} (t, {len(scores)} seeds), "
        f"spread {spread(np.array(scores)):.4f}",
        "bold",
    )


def scores_as_values(names: tuple[str, ...], matrices: np.ndarray, classes: tuple[str, ...]) -> dict[str, Any]:
    """Everything that per-image matrices (N C C+1) say, as plain values; nan where undefined."""
    counts = dataset_counts(matrices)
    columns = {"iou": iou(counts), "dice": dice(counts), "precision": precision(counts), "recall": recall(counts)}
    images = per_image_table(matrices)
    return {
        "frames": len(names),
        "score": {
            "miou": float(miou(counts)),
            "mean_dice": float(mean_dice(counts)),
            "accuracy": float(accuracy(counts)),
        },
        "per_class": {
            name: {"pixels": int(counts.truth[i])} | {k: float(v[i]) for k, v in columns.items()}
            for i, name in enumerate(classes)
        },
        "conventions": {k: float(v) for k, v in score_by_convention(matrices, classes).items()},
        "per_image": {
            name: {"accuracy": float(images["accuracy"][i])}
            | {k: dict(zip(classes, images[k][i].tolist(), strict=True)) for k in columns}
            for i, name in enumerate(names)
        },
    }


def score_tables(values: dict[str, Any], title: str) -> RenderableType:
    """Per class, then the same predictions under every convention."""
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    table.add_column("class")
    for name in ("share", "IoU", "Dice", "precision", "recall"):
        table.add_column(name, justify="right")
    total = sum(row["pixels"] for row in values["per_class"].values()) or 1
    for name, row in values["per_class"].items():
        share = f"{100 * row['pixels'] / total:.2f} %"
        table.add_row(name, share, *(_number(row[k]) for k in ("iou", "dice", "precision", "recall")))
    score = values["score"]
    summary = f"mIoU {score['miou']:.4f} · Dice {score['mean_dice']:.4f} · accuracy {score['accuracy']:.4f}"
    return Group(table, Text(summary, "bold green"), Text(), _convention_table(values["conventions"]))


def _convention_table(conventions: dict[str, float]) -> Table:
    table = Table(
        title="the same predictions under other rules",
        title_justify="left",
        title_style="bold",
        box=None,
        pad_edge=False,
    )
    table.add_column("rule", no_wrap=True)
    table.add_column("score", justify="right")
    table.add_column("what it is", style="dim")
    for name, value in conventions.items():
        table.add_row(name, _number(value), CONVENTIONS[name].definition)
    return table


def per_image_rows(values: dict[str, Any]) -> Table:
    """Accuracy and mean IoU over the truth's classes of each image."""
    table = Table(box=None, pad_edge=False)
    table.add_column("image")
    table.add_column("accuracy", justify="right")
    table.add_column("mean IoU", justify="right")
    for name, row in values["per_image"].items():
        recalls = np.array(list(row["recall"].values()), dtype=float)
        # a class has a recall where the truth holds it
        there = np.array(list(row["iou"].values()), dtype=float)[~np.isnan(recalls)]
        table.add_row(printable(name), _number(row["accuracy"]), _number(there.mean() if there.size else np.nan))
    return table


def describe_tables(values: dict[str, Any]) -> RenderableType:
    """What an Experiment builds."""
    parts: list[RenderableType] = [
        _groups_table(values),
        Text(f"input {_shape(values['input'])} → logits {_shape(values['output'])}"),
        Text("views " + ", ".join(f"{v['height']}×{v['width']}{' mirrored' * v['mirrored']}" for v in values["views"])),
        Text(),
        _rates_table(values["learning_rates"]),
        Text(),
        _weights_table(values),
    ]
    return Group(*parts)


def _groups_table(values: dict[str, Any]) -> Table:
    table = Table(title="parameters", title_justify="left", title_style="bold", box=None, pad_edge=False)
    for name in ("group", "total", "trainable", f"in {values['optimiser']['kind']}"):
        table.add_column(name, justify="left" if name == "group" else "right")
    in_optimiser = values["optimiser"]["groups"]
    for name, (total, trainable) in values["parameters"].items():
        table.add_row(name, f"{total:,}", f"{trainable:,}", f"{in_optimiser.get(name, 0):,}")
    sums = [sum(pair[i] for pair in values["parameters"].values()) for i in (0, 1)]
    table.add_row("all", f"{sums[0]:,}", f"{sums[1]:,}", f"{sum(in_optimiser.values()):,}", style="bold")
    return table


def _rates_table(rates: list[dict[str, float]]) -> Table:
    table = Table(title="learning rate", title_justify="left", title_style="bold", box=None, pad_edge=False)
    for name in ("epoch", *rates[0]):
        table.add_column(name, justify="right")
    for epoch, row in enumerate(rates, 1):
        table.add_row(str(epoch), *(f"{rate:.3g}" for rate in row.values()))
    return table


def _weights_table(values: dict[str, Any]) -> Table:
    table = Table(title="class weights", title_justify="left", title_style="bold", box=None, pad_edge=False)
    table.add_column("class")
    table.add_column("pixels", justify="right")
    for term, weight in values["loss"].items():
        table.add_column(f"{weight:g} × {term}", justify="right")
    for name, pixels in values["class_pixels"].items():
        weights = (values["class_weights"][term][name] for term in values["loss"])
        table.add_row(name, f"{pixels:,}", *(f"{w:.4f}" for w in weights))
    return table


def census_tables(values: dict[str, Any], title: str) -> RenderableType:
    """Class shares of each split, the weights that they give, and colour statistics."""
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    table.add_column("class")
    for split in values["splits"]:
        table.add_column(f"{split} %", justify="right")
        table.add_column("frames", justify="right")
    for scheme in values["class_weights"]:
        table.add_column(scheme, justify="right")
    for name in values["classes"]:
        cells = []
        for counted in values["splits"].values():
            row = counted["classes"][name]
            cells += [f"{100 * row['share']:.3f}", str(row["frames"])]
        weights = [_number(scheme[name]) for scheme in values["class_weights"].values()]
        table.add_row(name, *cells, *weights)
    lines = [Text(f"{split}: {_colours(counted)}") for split, counted in values["splits"].items()]
    return Group(table, *lines)


def gap_tables(values: dict[str, Any], a: str, b: str) -> RenderableType:
    """Class shares of two splits and their shift, then the colours."""
    table = Table(title=f"{a} → {b}", title_justify="left", title_style="bold", box=None, pad_edge=False)
    for name in ("class", "a %", "b %", "shift, points", "absent from"):
        table.add_column(name, justify="left" if name in ("class", "absent from") else "right")
    for row in values["classes"]:
        shares = f"{row['share_a']:.3f}", f"{row['share_b']:.3f}", f"{row['shift']:+.3f}"
        table.add_row(row["class"], *shares, row["absent"] or "")
    colours = [f"{c['channel']} {c['mean_a']:.1f} → {c['mean_b']:.1f} ({c['shift']:+.1f})" for c in values["colours"]]
    return Group(
        table,
        Text(f"total variation between the class shares {values['total_variation']:.3f}"),
        Text("mean colour " + ", ".join(colours)),
    )


def _colours(counted: dict[str, Any]) -> str:
    mean, deviation = ("/".join(f"{v:.1f}" for v in counted[k]) for k in ("colour_mean", "colour_deviation"))
    sizes = ", ".join(counted["sizes"])
    return (
        f"{counted['frames']} frames of {sizes}, RGB mean {mean}, deviation {deviation}, ignored {counted['ignored']}"
    )


def _shape(shape: list[int]) -> str:
    return "×".join(map(str, shape))


def _show(value: object) -> str:
    if value is None:
        return "–"
    return f"{value:.3g}" if isinstance(value, float) else printable(str(value))


def _number(value: float | None) -> str:
    return "–" if value is None or np.isnan(value) else f"{value:.4f}"
