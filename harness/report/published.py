"""The three systems' published numbers, rebuilt as tables from results/published alone."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from harness.config import did_you_mean
from harness.errors import StudyError
from harness.report.published_checks import Data, Rows, number
from harness.report.published_tables import (
    codecrunch_distribution,
    codecrunch_per_class,
    contradictions,
    desertmind_per_class,
    desertmind_phases,
    headlines,
    ignitia_changes,
    ignitia_per_class,
    ignitia_phases,
)
from harness.report.table import Table, write_table
from harness.store import write_text

Reproduced = Mapping[tuple[str, str], float]
"""Our measured score by (system, phase), as the columns of the table `headlines` spell them."""

_STATUS = (
    "Status: measured = printed by the team, machine-written or read in its script; approximate = printed with ~ or "
    "read off a figure; derived = computed from other numbers; contradictory = another source of the same team, or "
    "arithmetic, disagrees; estimated = assumed or scaled, never measured. After a semicolon: the columns of the row "
    "with another status."
)


class _Copy(NamedTuple):
    """A table that shows the rows of one file, or those whose cell of a column matches a pattern from its start on."""

    name: str
    title: str
    file: str
    column: str = "status"
    pattern: str = ""


def _report(n: int) -> str:
    """Sources that name table n of CodeCrunch's report."""
    return rf"CodeCrunch report ([^;]*, )?Table {n}(;|,|$)"


_COPIES = (
    _Copy("conventions_20_frames", "Two systems' predictions for 20 test frames under each scoring convention",
          "conventions_20frames"),
    *(_Copy(f"ignitia_epochs_phase_{p}", f"Ignitia, phase {p}, every epoch", "ignitia/epochs", "phase", f"{p}$")
      for p in range(1, 7)),
    _Copy("ignitia_hyperparameters", "Ignitia, every setting in every phase", "ignitia/hyperparameters"),
    _Copy("ignitia_learning_rates", "Ignitia, learning rates as logged and in effect", "ignitia/lr_in_effect"),
    _Copy("ignitia_class_pixels_phase_2", "Ignitia, pixels and weights of the classes, phase 2",
          "ignitia/class_pixels"),
    _Copy("ignitia_class_pixels_phase_6", "Ignitia, pixels and weights of the classes, phase 6",
          "ignitia/class_pixels_phase6"),
    _Copy("ignitia_class_shares", "Ignitia, class shares with and without the border fill",
          "ignitia/class_shares_fill_corrected"),
    _Copy("ignitia_documents_against_log", "Ignitia, printed per-epoch cells that differ from the log",
          "ignitia/disagreements_epochs"),
    _Copy("ignitia_phase_6_scores_not_measured", "Ignitia, phase 6, Dice and accuracy that were never measured",
          "ignitia/phase6_derived_not_measured"),
    _Copy("ignitia_phase_6_classes_not_measured", "Ignitia, phase 6, IoU per class that was never measured",
          "ignitia/phase6_per_class_ESTIMATED_not_measured"),
    _Copy("codecrunch_02_strategies", "CodeCrunch, Table 2: ways to treat absent classes", "codecrunch/strategies"),
    _Copy("codecrunch_03_augmentation", "CodeCrunch, Table 3: augmentation, report and code",
          "codecrunch/augmentation"),
    _Copy("codecrunch_04_class_weights", "CodeCrunch, Table 4: class weights", "codecrunch/class_weights",
          "source", _report(4)),
    _Copy("codecrunch_05_hyperparameters", "CodeCrunch, Table 5: hyperparameters, report and code",
          "codecrunch/hyperparameters", "source", _report(5)),
    _Copy("codecrunch_06_benchmark", "CodeCrunch, Table 6: benchmark", "codecrunch/benchmark", "source", _report(6)),
    _Copy("codecrunch_08_ablation", "CodeCrunch, Table 8: ablation", "codecrunch/ablation", "source", _report(8)),
    _Copy("codecrunch_09_failed_attempts", "CodeCrunch, Table 9: failed attempts", "codecrunch/failed_attempts"),
    _Copy("codecrunch_10_gpu_hours", "CodeCrunch, Table 10: GPU hours", "codecrunch/gpu_hours", "source", _report(10)),
    _Copy("codecrunch_phases", "CodeCrunch, scores of the phases, every source", "codecrunch/phases"),
    _Copy("codecrunch_ablation_sources", "CodeCrunch, ablation, every source", "codecrunch/ablation"),
    _Copy("codecrunch_benchmark_sources", "CodeCrunch, benchmark, every source", "codecrunch/benchmark"),
    _Copy("codecrunch_class_distribution_sources", "CodeCrunch, class distribution, every source",
          "codecrunch/class_distribution"),
    _Copy("codecrunch_class_weights_sources", "CodeCrunch, class weights, every source", "codecrunch/class_weights"),
    _Copy("codecrunch_gpu_hours_sources", "CodeCrunch, GPU hours, every source", "codecrunch/gpu_hours"),
    _Copy("codecrunch_hyperparameters_sources", "CodeCrunch, hyperparameters, every source",
          "codecrunch/hyperparameters"),
    _Copy("codecrunch_per_class_sources", "CodeCrunch, IoU per class, every source", "codecrunch/per_class_iou"),
    _Copy("codecrunch_colour_means", "CodeCrunch, mean colours of the splits", "codecrunch/color_means"),
    _Copy("codecrunch_prediction_counts", "CodeCrunch, pixels of the stored test predictions",
          "codecrunch/prediction_counts"),
    _Copy("codecrunch_phase_3_curve", "CodeCrunch, phase 3, curves read off the figure",
          "codecrunch/phase3_curve_digitised"),
    _Copy("codecrunch_phase_5_learning_rates", "CodeCrunch, phase 5, learning rates of the script",
          "codecrunch/phase5_lr_schedule"),
    _Copy("codecrunch_statements", "CodeCrunch, other numbers", "codecrunch/misc_numbers"),
    _Copy("desertmind_configurations", "DesertMind, settings of every phase", "desertmind/configurations"),
    _Copy("desertmind_hyperparameters", "DesertMind, settings in documents and code", "desertmind/hyperparameters"),
    _Copy("desertmind_epochs", "DesertMind, every epoch", "desertmind/epochs"),
    _Copy("desertmind_per_class_epochs", "DesertMind, IoU per class, every epoch and source",
          "desertmind/per_class_iou"),
    _Copy("desertmind_class_changes", "DesertMind, change of the IoU per class between phases",
          "desertmind/phase_deltas_per_class"),
    _Copy("desertmind_class_weights", "DesertMind, class weights", "desertmind/class_weights"),
    _Copy("desertmind_readme_against_log", "DesertMind, expected output of the README against the log",
          "desertmind/readme_expected_output_vs_log"),
    _Copy("desertmind_label_names", "DesertMind, names of the classes", "desertmind/label_names"),
    _Copy("desertmind_latency", "DesertMind, latency of inference", "desertmind/inference_latency"),
    _Copy("desertmind_statements", "DesertMind, scores that its documents state", "desertmind/summary"),
    _Copy("desertmind_other_statements", "DesertMind, other numbers", "desertmind/misc_numbers"),
)  # fmt: skip


def write_published(source: Path, out: Path, reproduced: Reproduced | None = None) -> list[Path]:
    """Write every table as Markdown, CSV and LaTeX, and index.md; the same bytes each time.

    `reproduced` as in published_tables.

    Raises:
        StudyError: `source` lacks a file, a file is ragged, or `out` is no folder.
    """
    tables = published_tables(source, reproduced)
    if out.exists() and not out.is_dir():
        raise StudyError(f"{out} is a file; give a folder for the tables")
    out.mkdir(parents=True, exist_ok=True)
    paths = [path for table in tables.values() for path in write_table(table, out)]
    write_text(out / "index.md", _index(tables.values()))
    return [*paths, out / "index.md"]


def published_tables(source: Path, reproduced: Reproduced | None = None) -> dict[str, Table]:
    """Every published table by its name, cells as the text of the CSV files in `source` (results/published).

    With `reproduced`, the tables of scores get the columns 'reproduced' and 'difference' (ours less theirs). A
    score must be taken under the system's own convention to be comparable.

    Raises:
        StudyError: `source` lacks a file, a file is ragged, or `reproduced` names an unknown phase.
    """
    data = _read(source)
    scores = [headlines(data), ignitia_phases(data, 3), ignitia_phases(data, 6), desertmind_phases(data)]
    built = [
        contradictions(data),
        *(scores if reproduced is None else [_compared(table, reproduced, scores[0]) for table in scores]),
        ignitia_per_class(data),
        *(ignitia_changes(data, phase) for phase in range(1, 6)),
        codecrunch_distribution(data),
        codecrunch_per_class(data),
        desertmind_per_class(data),
        *(_copy(data, copy) for copy in _COPIES),
    ]
    return {table.name: table for table in sorted(built, key=lambda table: table.name)}


def _read(source: Path) -> dict[str, Rows]:
    names = {copy.file for copy in _COPIES} | {"contradictions", "ignitia/summary", "ignitia/per_class_iou"}
    return {name: _read_file(source / f"{name}.csv") for name in sorted(names)}


def _read_file(path: Path) -> Rows:
    if not path.is_file():
        raise StudyError(f"{path} does not exist; give the folder results/published of the repository")
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if not rows or not {"source", "status"} <= set(rows[0]):
        raise StudyError(f"{path} has no rows with a 'source' and a 'status'; restore the file")
    for line, row in enumerate(rows, 2):
        if None in row or None in row.values():
            raise StudyError(f"{path}: row {line} has not the {len(rows[0])} cells of the first line; restore it")
    return rows


def _copy(data: Data, copy: _Copy) -> Table:
    rows = [row for row in data[copy.file] if re.match(copy.pattern, row[copy.column])]
    columns = tuple(data[copy.file][0])
    return Table(copy.name, copy.title, columns, tuple(tuple(row[c] for c in columns) for row in rows))


def _compared(table: Table, reproduced: Reproduced, published: Table) -> Table:
    """The table with our score and its difference beside each published one."""
    known = {(row[0], row[1]) for row in published.rows}
    for key in reproduced:
        if key not in known:
            raise StudyError(f"{key} is no published (system, phase){did_you_mean(str(key), map(str, known))}")
    at = {column: i for i, column in enumerate(table.columns)}
    score = next(at[c] for c in ("score", "best_val_iou", "best_val_miou") if c in at)
    system = {"ignitia": "Ignitia", "desertmind": "DesertMind"}.get(table.name.split("_")[0])
    rows = []
    for row in table.rows:
        ours = reproduced.get((system or row[at["system"]], row[at["phase"]]))
        rows.append((*row, *(("", "") if ours is None else (f"{ours:.4f}", f"{ours - number(row[score]):+.4f}"))))
    return Table(table.name, table.title, (*table.columns, "reproduced", "difference"), tuple(rows), table.notes)


def _index(tables: Iterable[Table]) -> str:
    lines = [
        f"| {table.title} | {len(table.rows)} | {' '.join(f'[{e}]({table.name}.{e})' for e in ('md', 'csv', 'tex'))} |"
        for table in tables
    ]
    head = ["# Published numbers", "", _STATUS, "", "| table | rows | files |", "| --- | ---: | --- |"]
    return "\n".join([*head, *lines, ""])
