"""The tables of an ablation, from its records alone: effects, rules, classes, cost, factors and runs.

Read from `ablation_tables` down: one function makes one table. Every resample is drawn with the same seed, so
that a rebuilt table is the same file. Neither torch nor ray.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from rich.console import Group, RenderableType
from rich.text import Text

from harness.config.ablation import Factorial, Shapley
from harness.report.ablation_classes import per_class_delta_table, per_class_table, validation_vs_test_table
from harness.report.ablation_cost import cost_table, runs_table
from harness.report.ablation_effects import against_baseline, against_previous, effects_table, steps_table, warnings_of
from harness.report.ablation_factors import factorial_table, interactions_table, shapley_table
from harness.report.ablation_rules import conventions_table, denominator_table
from harness.report.ablation_screen import effects_on_screen, factors_on_screen, headline, sentences
from harness.report.ablation_shared import NO_TRIAL, VERDICT
from harness.report.records import AblationRecords
from harness.report.table import Table, write_table
from harness.store import read_provenance, write_text

_ROWS_ON_SCREEN = 16


def ablation_tables(records: AblationRecords) -> dict[str, Table]:
    """Every table that the design allows, by name; an arm without a complete trial keeps its row, in dashes.

    Raises StudyError where stored matrices do not give the recorded scores, or differ in their images.
    """
    makers: list[Callable[[AblationRecords], Table]] = [effects_table]
    design = records.settings.ablation.design
    if records.rungs:
        makers.append(steps_table)
    if isinstance(design, Factorial):
        makers.append(factorial_table)
    if isinstance(design, Shapley):
        makers += [shapley_table, interactions_table]
    makers += [
        denominator_table, conventions_table, per_class_table, per_class_delta_table, validation_vs_test_table,
        cost_table, runs_table,
    ]  # fmt: skip
    tables = [make(records) for make in makers]
    return {table.name: table for table in tables}


def write_ablation_tables(records: AblationRecords, out: Path) -> list[Path]:
    """Write every table as Markdown, CSV and LaTeX, and index.md, into a folder that is made where needed.

    The same records give the same bytes. Returns the paths written; raises StudyError as ablation_tables does.
    """
    tables = ablation_tables(records)
    out.mkdir(parents=True, exist_ok=True)
    paths = [path for table in tables.values() for path in write_table(table, out)]
    index = out / "index.md"
    write_text(index, _index(records, tables))
    return [*paths, index]


def ablation_summary(records: AblationRecords) -> RenderableType:
    """The effects and the few sentences that matter, for a terminal of 60 columns or more."""
    rows = against_baseline(records)
    design = records.settings.ablation.design
    parts: list[RenderableType] = [Text(), Text(headline(records), "bold")]
    if isinstance(design, Shapley):
        columns = ("factor", "value", "interval", "share", "authors' guess")
        parts += [Text(), factors_on_screen(shapley_table(records), columns, columns[:2])]
    if isinstance(design, Factorial):
        columns = ("effect", "estimate", "interval", "Holm p", "verdict")
        parts += [Text(), factors_on_screen(factorial_table(records), columns, ("effect", "estimate", "verdict"))]
    if len(rows) <= _ROWS_ON_SCREEN:
        parts += [Text(), effects_on_screen(f"against {records.baseline}", rows, records)]
    if records.rungs:
        parts += [Text(), effects_on_screen("against the rung before", against_previous(records), records)]
    return Group(*parts, Text(), *sentences(records, rows))


def _index(records: AblationRecords, tables: Mapping[str, Table]) -> str:
    asked = records.settings
    lines = [
        f"# Ablation {records.folder.name}",
        "",
        f"- design: {asked.ablation.design.kind}, baseline {records.baseline}",
        f"- arms: {', '.join(records.arms)}",
        f"- scale: {asked.scale}",
        f"- seeds: {asked.seeds} of every arm; complete trials: {sum(map(len, records.trials.values()))} of "
        f"{asked.seeds * len(records.arms)}",
        f"- data set: fingerprint {asked.dataset}",
        f"- commit: {_commit(records)}",
        "",
        VERDICT,
        "",
        *(f"- {note}" for note in warnings_of(records, against_baseline(records))),
        *(f"- {arm}: {NO_TRIAL}" for arm in records.arms if arm not in records.trials),
        "",
        *(f"- [{table.name}]({table.name}.md): {table.title}" for table in tables.values()),
    ]
    return "\n".join(lines) + "\n"


def _commit(records: AblationRecords) -> str:
    about = read_provenance(records.folder)
    if not about:
        return f"unknown, {records.folder.provenance.name} is missing"
    return about.get("commit") or "unknown, not a git checkout"
