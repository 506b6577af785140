"""The page of an ablation: what each factor is worth, the plots and tables of its design, pictures, provenance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from harness.config.ablation import Factorial, Shapley
from harness.report.ablation import ablation_tables
from harness.report.ablation_effects import EffectRow, against_baseline, against_previous
from harness.report.ablation_screen import sentences
from harness.report.ablation_shared import DASH, number, p_value, signed, span
from harness.report.html.figured import Figured
from harness.report.html.pictures import pictures_section
from harness.report.html.sections import Block, Page, Rows, Section, Words, numeric, rows_of
from harness.report.html.shared_sections import created, failures_section, hours, provenance_section
from harness.report.interactive import figure_of
from harness.report.pictured import runs_of_arms
from harness.report.plot_data import plot_data
from harness.report.plot_shapes import Chart, LineChart, PlotData
from harness.report.records import AblationRecords, read_ablation
from harness.report.table import Table
from harness.store import Record, StudyFolder

_FACTORS = ("factor", "value", "interval", "share", "authors' guess")
_ESTIMATES = ("effect", "estimate", "interval", "Holm p", "verdict")
#: how the names of charts of one arm's training begin
_CURVES = "curves"
#: arms from which the comparison with the baseline stands among the tables alone, where the steps say more, and from
#: which the trainings show means alone
_MANY = 16


def ablation_page(folder: StudyFolder) -> Page:
    """Everything that an ablation's folder says, what each factor is worth first.

    Raises:
        StudyError, ConfigError: the folder holds no ablation, or its matrices do not give its scores.
    """
    records = read_ablation(folder)
    rows = list(Record(folder).ended.values())
    tables, plots = ablation_tables(records), plot_data(records)
    training = [chart for chart in plots.charts if chart.name.startswith(_CURVES)]
    others = [figured(chart) for chart in plots.charts if chart not in training]
    if len(training) > _MANY:
        training = [_means_alone(chart) for chart in training]
    sections = [
        _answer_section(records, tables),
        Section("figures", "Figures", (*others, *_left_out(plots))),
        Section("training", "Training of each arm", tuple(map(figured, training))) if training else None,
        pictures_section(folder, runs_of_arms(records)),
        Section("tables", "Tables", tuple(map(rows_of, tables.values()))),
        failures_section(folder, rows),
        provenance_section(folder),
    ]
    asked = records.settings
    spent, on_what = hours(folder, rows)
    about = (
        f"Ablation, {asked.ablation.design.kind}", f"{len(records.arms)} arms", f"seeds {asked.seeds}",
        f"scale {asked.scale}", f"{spent} {on_what}", created(folder),
    )  # fmt: skip
    return Page(folder.name, tuple(filter(None, about)), tuple(s for s in sections if s is not None))


def figured(chart: Chart) -> Figured:
    """A chart of the reports as a figure of the page."""
    figure = figure_of(chart)
    # cells are translucent: what stands on them takes the page's colour
    figure.update_traces(meta="on page", selector={"type": "heatmap"})
    return Figured(f"figure-{chart.name.lower()}", chart.title, " ".join(chart.notes), figure)


def _means_alone(chart: Chart) -> Chart:
    """A chart of a training without the line of each seed: of many arms they would be most of the page."""
    if not isinstance(chart, LineChart):
        return chart
    panels = tuple(replace(panel, series=tuple(s for s in panel.series if s.style != "thin")) for panel in chart.panels)
    notes = ("Lines: means over seeds; each seed's own are in report/plots.html. Dots: the best epoch of each seed.",)
    return replace(chart, panels=panels, notes=notes)


def _answer_section(records: AblationRecords, tables: Mapping[str, Table]) -> Section:
    effects = against_baseline(records)
    said = [line.plain for line in sentences(records, effects)]
    lead, rest = (said[:1], said[1:]) if any(row.effect for row in effects) else ([], said)
    blocks: list[Block] = [Words(_capital(f"{text}."), "lead") for text in lead]
    blocks += _of_design(records, tables)
    if records.rungs:
        blocks.append(_effects("Every rung against the one before", against_previous(records)))
    if len(effects) <= _MANY or not records.rungs:
        blocks.append(_effects(f"Every arm against {records.baseline}", effects))
    return Section("answer", "What each is worth", (*blocks, *(Words(text) for text in rest)))


def _of_design(records: AblationRecords, tables: Mapping[str, Table]) -> list[Block]:
    design = records.settings.ablation.design
    if isinstance(design, Shapley):
        return [_some(tables["shapley"], _FACTORS)]
    return [_some(tables["factorial"], _ESTIMATES)] if isinstance(design, Factorial) else []


def _some(table: Table, columns: Sequence[str]) -> Rows:
    """A few columns of a table, without its notes."""
    places = [table.columns.index(name) for name in columns]
    rows = tuple(tuple(row[i] for i in places) for row in table.rows)
    return Rows(table.title, tuple(columns), rows, right=numeric(rows))


def _effects(caption: str, effects: Sequence[EffectRow]) -> Rows:
    """Every arm's score, its gain and the verdict; arms that are resolved are marked."""
    columns = ("arm", "seeds", "mIoU", "gain", "95 % interval", "Holm p", "verdict")
    rows = tuple(_effect(row) for row in effects)
    marked = tuple(i for i, row in enumerate(effects) if row.said in ("better", "worse"))
    notes = ("Marked: resolved, its seeds tell it apart.",) if marked else ()
    return Rows(caption, columns, rows, notes, numeric(rows), marked)


def _effect(row: EffectRow) -> tuple[str, ...]:
    score = number(row.score.point) if row.score else DASH
    if row.effect is None:
        return row.arm, str(row.n), score, "", "", "", row.said
    difference = row.effect.difference
    tested = (signed(difference.point), span(difference, signed), p_value(row.effect.p_holm))
    return row.arm, str(row.n), score, *tested, row.said


def _left_out(plots: PlotData) -> list[Words]:
    return [Words(f"Left out: {one.name}, {one.reason}.", "muted") for one in plots.left_out]


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
