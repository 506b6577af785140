"""The published tables: every cell is that of the data, the files are the same bytes each time."""

from __future__ import annotations

import csv
import io
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harness.errors import StudyError
from harness.report.published import published_tables, write_published
from harness.report.published_checks import CHECKS
from harness.report.table import Table, to_csv, to_latex, to_markdown

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "results" / "published"
ORIGINALS = ROOT.parent / "shared" / "published"
STATUSES = {"measured", "approximate", "derived", "contradictory", "estimated"}
REWORDED = {"source", "note", "notes"}
IDS = [f"D{n}" for n in range(1, 35)] + [f"C-D{n}" for n in range(1, 19)] + [f"D-D{n}" for n in range(1, 15)]

AWKWARD = Table(
    "awkward",
    "100 % & more_of #1",
    ("a_b", "x|y"),
    (("~0.5^2 {x} $5 \\n", "[1.02 < 2 > 1] --- *"), ("—–×±→", 'two\nlines "q"')),
    ("a note & more",),
)


@pytest.fixture(scope="module")
def tables() -> dict[str, Table]:
    return published_tables(SOURCE)


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    return shutil.copytree(SOURCE, tmp_path / "published")


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def cells(table: Table) -> list[dict[str, str]]:
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows]


def replace_in(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count(old) >= 1
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


DATA = sorted(path.relative_to(SOURCE).as_posix() for path in SOURCE.rglob("*.csv"))
NEW = {"contradictions.csv", "ignitia/hyperparameters.csv", "desertmind/configurations.csv"}


@pytest.mark.parametrize("name", sorted(set(DATA) - NEW))
def test_every_number_is_that_of_the_original_file(name: str) -> None:
    if not ORIGINALS.is_dir():
        pytest.skip("the original files are not beside this checkout")
    originals, ours = rows_of(ORIGINALS / name), rows_of(SOURCE / name)
    columns = [column for column in originals[0] if column not in REWORDED]
    assert columns
    assert [[row[c] for c in columns] for row in ours] == [[row[c] for c in columns] for row in originals]
    assert list(ours[0])[: len(originals[0])] == list(originals[0])


def test_every_original_file_is_here() -> None:
    if not ORIGINALS.is_dir():
        pytest.skip("the original files are not beside this checkout")
    assert {path.relative_to(ORIGINALS).as_posix() for path in ORIGINALS.rglob("*.csv")} == set(DATA) - NEW


@pytest.mark.parametrize("name", DATA)
def test_the_data_hold_no_path_of_a_machine_and_only_known_statuses(name: str) -> None:
    text = (SOURCE / name).read_text(encoding="utf-8")
    assert not re.search(r"(^|[\s\",])/[a-z]+/|repos/|\.\./|[Ss]eed 0|spec ", text, re.MULTILINE)
    for row in rows_of(SOURCE / name):
        first, *others = row["status"].split("; ")
        assert row["source"]
        assert {first, *(other.rsplit(" ", 1)[1] for other in others)} <= STATUSES, row
        assert {other.rsplit(" ", 1)[0] for other in others} <= set(row), row


COPIES = {
    "conventions_20_frames": "conventions_20frames",
    "ignitia_hyperparameters": "ignitia/hyperparameters",
    "ignitia_learning_rates": "ignitia/lr_in_effect",
    "ignitia_class_pixels_phase_2": "ignitia/class_pixels",
    "ignitia_class_pixels_phase_6": "ignitia/class_pixels_phase6",
    "ignitia_class_shares": "ignitia/class_shares_fill_corrected",
    "ignitia_documents_against_log": "ignitia/disagreements_epochs",
    "ignitia_phase_6_scores_not_measured": "ignitia/phase6_derived_not_measured",
    "ignitia_phase_6_classes_not_measured": "ignitia/phase6_per_class_ESTIMATED_not_measured",
    "codecrunch_02_strategies": "codecrunch/strategies",
    "codecrunch_03_augmentation": "codecrunch/augmentation",
    "codecrunch_09_failed_attempts": "codecrunch/failed_attempts",
    "codecrunch_phases": "codecrunch/phases",
    "codecrunch_ablation_sources": "codecrunch/ablation",
    "codecrunch_benchmark_sources": "codecrunch/benchmark",
    "codecrunch_class_distribution_sources": "codecrunch/class_distribution",
    "codecrunch_class_weights_sources": "codecrunch/class_weights",
    "codecrunch_gpu_hours_sources": "codecrunch/gpu_hours",
    "codecrunch_hyperparameters_sources": "codecrunch/hyperparameters",
    "codecrunch_per_class_sources": "codecrunch/per_class_iou",
    "codecrunch_colour_means": "codecrunch/color_means",
    "codecrunch_prediction_counts": "codecrunch/prediction_counts",
    "codecrunch_phase_3_curve": "codecrunch/phase3_curve_digitised",
    "codecrunch_phase_5_learning_rates": "codecrunch/phase5_lr_schedule",
    "codecrunch_statements": "codecrunch/misc_numbers",
    "desertmind_configurations": "desertmind/configurations",
    "desertmind_hyperparameters": "desertmind/hyperparameters",
    "desertmind_epochs": "desertmind/epochs",
    "desertmind_per_class_epochs": "desertmind/per_class_iou",
    "desertmind_class_changes": "desertmind/phase_deltas_per_class",
    "desertmind_class_weights": "desertmind/class_weights",
    "desertmind_readme_against_log": "desertmind/readme_expected_output_vs_log",
    "desertmind_label_names": "desertmind/label_names",
    "desertmind_latency": "desertmind/inference_latency",
    "desertmind_statements": "desertmind/summary",
    "desertmind_other_statements": "desertmind/misc_numbers",
}


@pytest.mark.parametrize(("name", "file"), COPIES.items())
def test_a_table_of_one_file_has_every_cell_of_it(tables: dict[str, Table], name: str, file: str) -> None:
    assert cells(tables[name]) == rows_of(SOURCE / f"{file}.csv")


def test_every_data_file_reaches_a_table() -> None:
    elsewhere = {"contradictions", "ignitia/epochs", "ignitia/summary", "ignitia/per_class_iou"}
    assert set(COPIES.values()) | elsewhere == {name.removesuffix(".csv") for name in DATA}


def test_the_epochs_of_all_ignitia_phases_are_those_of_the_file(tables: dict[str, Table]) -> None:
    epochs = [row for phase in range(1, 7) for row in cells(tables[f"ignitia_epochs_phase_{phase}"])]
    assert epochs == rows_of(SOURCE / "ignitia/epochs.csv")


@pytest.mark.parametrize(
    ("name", "rows", "first"),
    [
        ("codecrunch_04_class_weights", 7, "Rocks"),
        ("codecrunch_05_hyperparameters", 10, "Optimiser"),
        ("codecrunch_06_benchmark", 12, "Validation mIoU"),
        ("codecrunch_08_ablation", 6, "CodeCrunch report Table 8"),
        ("codecrunch_10_gpu_hours", 5, "Phase 2 (baseline)"),
    ],
)
def test_a_table_of_the_report_has_the_rows_that_name_it(
    tables: dict[str, Table], name: str, rows: int, first: str
) -> None:
    assert (len(tables[name].rows), tables[name].rows[0][0]) == (rows, first)
    number = int(name.split("_")[1])
    assert all(f"Table {number}" in row["source"] for row in cells(tables[name]))


def test_the_class_distribution_puts_the_splits_side_by_side(tables: dict[str, Table]) -> None:
    rows = {row["class"]: row for row in cells(tables["codecrunch_01_class_distribution"])}
    assert len(rows) == 10
    assert rows["Rocks"] == {
        "class": "Rocks", "raw_value": "800", "train": "1.2", "test": "18.1", "train to test": "+16.9",
        "test pixels": "94204099", "status": "measured; train to test derived",
    }  # fmt: skip


def test_the_printed_validation_mean_stands_beside_that_of_its_rows(tables: dict[str, Table]) -> None:
    *_, printed, mean = tables["codecrunch_07_per_class"].rows
    assert printed == ("mean, as printed", "0.746", "0.448", "contradictory; test measured")
    assert mean == ("mean of the rows above", "0.7236", "0.4476", "derived")


def test_the_per_class_mean_stands_beside_the_headline(tables: dict[str, Table]) -> None:
    table = tables["ignitia_per_class"]
    mean, headline = table.rows[-2:]
    assert mean[1:-1] == ("0.3867", "0.5022", "0.5009", "0.5029", "0.5167", "0.5185", "0.5295")
    rounded = [f"{float(cell):.4f}" for cell in headline[1:-1]]
    assert rounded == ["0.4036", "0.5161", "0.5150", "0.5169", "0.5294", "0.5310", "0.5527"]
    assert [row[0] for row in table.rows[:-2]] == [
        "Background", "Trees", "Lush Bushes", "Dry Grass", "Dry Bushes", "Ground Clutter", "Logs", "Rocks",
        "Landscape", "Sky",
    ]  # fmt: skip


def test_the_per_class_journey_has_every_measured_cell(tables: dict[str, Table]) -> None:
    journey = {row["class"]: row for row in cells(tables["ignitia_per_class"])}
    for row in rows_of(SOURCE / "ignitia/per_class_iou.csv"):
        column = f"phase {row['phase']}" + " TTA" * (row["tta"] == "1")
        assert journey[row["class"]][column] == row["iou"]


def test_the_phases_compared_take_dice_from_the_best_epoch_and_from_the_last(tables: dict[str, Table]) -> None:
    six = {row["phase"]: row for row in cells(tables["ignitia_six_phases"])}
    assert list(six) == ["1", "2", "3", "4", "5", "6"]
    assert [f"{float(six['2'][c]):.4f}" for c in ("val_dice_at_best", "final_val_dice")] == ["0.6121", "0.6116"]
    assert cells(tables["ignitia_three_phases"]) == [six["1"], six["2"], six["3"]]


def test_desertmind_has_the_best_epoch_of_each_phase(tables: dict[str, Table]) -> None:
    rows = {row["phase"]: row for row in cells(tables["desertmind_phases"])}
    found = {p: (row["best_epoch"], row["epochs_run"], row["mean_of_per_class"]) for p, row in rows.items()}
    assert found == {
        "1": ("9", "10", ""), "2.1": ("6", "6", "0.4873"), "2.2": ("2", "4", "0.4914"), "3": ("2", "5", "0.4675"),
    }  # fmt: skip
    means = next(row for row in cells(tables["desertmind_per_class"]) if row["class"] == "mean of per-class")
    assert [means[f"phase {p}"] for p in ("2.1", "2.2", "3")] == ["0.4873", "0.4914", "0.4675"]
    assert means["README, phase 2.2"] == "0.5037"


def test_what_changed_is_what_differs_in_the_settings(tables: dict[str, Table]) -> None:
    settings = rows_of(SOURCE / "ignitia/hyperparameters.csv")
    for phase in range(1, 6):
        before, after = f"phase_{phase}", f"phase_{phase + 1}"
        differ = {row["setting"]: (row[before], row[after]) for row in settings if row[before] != row[after]}
        table = cells(tables[f"ignitia_changes_{phase}_to_{phase + 1}"])
        assert {row["setting"]: (row[before], row[after]) for row in table} == differ
    assert ("backbone", "dinov2_vits14", "dinov2_vitb14_reg") in {
        row[:3] for row in tables["ignitia_changes_2_to_3"].rows
    }
    assert "backbone" not in {row[0] for row in tables["ignitia_changes_1_to_2"].rows}


def test_every_contradiction_is_there_once(tables: dict[str, Table]) -> None:
    assert [row["id"] for row in cells(tables["contradictions"])] == IDS


def test_recomputed_numbers_agree_with_the_evidence_but_for_a_rounded_figure(tables: dict[str, Table]) -> None:
    rows = {row["id"]: row for row in cells(tables["contradictions"])}
    assert {id for id, row in rows.items() if row["recomputed"]} == set(CHECKS)
    assert {id for id, row in rows.items() if row["expected"]} == set(CHECKS)
    assert {id for id, row in rows.items() if row["agrees"] == "no"} == {"C-D8"}
    assert rows["C-D8"]["recomputed"] == "7; 5; 14"
    assert rows["D7"]["recomputed"] == "94.79; 361741912; 381.6; 36.63; 23.56"
    assert rows["D2"]["recomputed"] == "1.354; 1.568; 120; 1.365; 1.579"
    assert rows["C-D2"]["recomputed"] == "0.4429; 0.4421; 0.4436"


def test_a_changed_digit_changes_the_tables_that_hold_it(tables: dict[str, Table], copied: Path) -> None:
    replace_in(copied / "ignitia/per_class_iou.csv", "0.50299461753", "0.60299461753")
    changed = published_tables(copied)
    assert {name for name in tables if tables[name] != changed[name]} == {"contradictions", "ignitia_per_class"}
    assert "0.6029946175345685" in to_csv(changed["ignitia_per_class"])


def test_a_changed_share_no_longer_agrees(copied: Path) -> None:
    replace_in(copied / "ignitia/class_pixels.csv", "34.72", "34.92")
    row = next(row for row in cells(published_tables(copied)["contradictions"]) if row["id"] == "D7")
    assert row["recomputed"].startswith("94.99; ")
    assert row["agrees"] == "no"


def test_every_table_has_a_status_and_a_row(tables: dict[str, Table]) -> None:
    for name, table in tables.items():
        assert table.name == name
        assert table.rows, name
        assert all(row["status"] for row in cells(table)), name


def test_the_files_are_the_same_bytes_each_time(tmp_path: Path, tables: dict[str, Table]) -> None:
    first, second = (write_published(SOURCE, tmp_path / name / "deep") for name in ("one", "two"))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    names = {f"{name}{ending}" for name in tables for ending in (".md", ".csv", ".tex")}
    assert {path.name for path in (tmp_path / "one" / "deep").iterdir()} == names | {"index.md"}
    assert len(first) == len(names) + 1
    assert b"\r" not in b"".join(path.read_bytes() for path in first)


def test_the_index_links_every_file(tmp_path: Path) -> None:
    written = {path.name for path in write_published(SOURCE, tmp_path)}
    linked = set(re.findall(r"\]\(([^)]+)\)", (tmp_path / "index.md").read_text()))
    assert linked == written - {"index.md"}


def test_the_latex_of_every_table_is_plain_text_with_a_cell_for_each_column(tables: dict[str, Table]) -> None:
    for table in tables.values():
        latex = to_latex(table)
        assert latex.isascii(), table.name
        rows = [line for line in latex.splitlines() if line.endswith(r" \\") and not line.startswith(r"\caption")]
        assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {len(table.columns) - 1}, table.name
        assert not re.search(r"(?<!\\)[#$]", latex), table.name


def test_awkward_letters_are_escaped_for_latex() -> None:
    latex = to_latex(AWKWARD)
    assert r"\caption{100 \% \& more\_of \#1}\label{tab:awkward}" in latex
    assert r"a\_b & x\textbar{}y \\" in latex
    cell = r"\textasciitilde{}0.5\textasciicircum{}2 \{x\} \$5 \textbackslash{}n & "
    assert cell + r"{[}1.02 \textless{} 2 \textgreater{} 1{]} -{}-{}- {*} \\" in latex
    assert r"\textemdash{}\textendash{}\ensuremath{\times}\ensuremath{\pm}\ensuremath{\to} & " in latex
    assert r"two lines \textquotedbl{}q\textquotedbl{} \\" in latex
    assert r"\par\noindent a note \& more" in latex


def test_awkward_letters_are_escaped_for_markdown() -> None:
    assert to_markdown(AWKWARD).splitlines() == [
        "# 100 % & more_of #1",
        "",
        r"| a_b | x\|y |",
        "| --- | --- |",
        r"| \~0.5^2 {x} \$5 \\n | \[1.02 \< 2 > 1\] --- \* |",
        '| —–×±→ | two<br>lines "q" |',
        "",
        "- a note & more",
    ]


def test_csv_gives_back_the_cells() -> None:
    assert list(csv.reader(io.StringIO(to_csv(AWKWARD), newline=""))) == [
        list(AWKWARD.columns),
        *map(list, AWKWARD.rows),
    ]


def test_numbers_stand_to_the_right_and_long_text_wraps() -> None:
    table = Table("t", "T", ("n", "word", "long"), (("~0.43", "a", "x" * 31), ("-1e-05", "1", ""), ("", "", "y")))
    assert r"\begin{tabular}{rlp{4.5cm}}" in to_latex(table)
    assert "| ---: | --- | --- |" in to_markdown(table)


@pytest.mark.parametrize(("rows", "kind"), [(40, "tabular"), (41, "longtable")])
def test_a_table_of_more_than_forty_rows_runs_over_pages(rows: int, kind: str) -> None:
    latex = to_latex(Table("t", "T", ("n",), (("1",),) * rows))
    assert latex.count(rf"\begin{{{kind}}}") == latex.count(rf"\end{{{kind}}}") == 1
    assert latex.splitlines().count(r"1 \\") == rows


def test_a_ragged_table_is_refused_with_the_row() -> None:
    with pytest.raises(ValueError, match="table t: row 2 has 1 cells for 2 columns; give 2"):
        Table("t", "T", ("a", "b"), (("1", "2"), ("3",)))


def test_our_scores_stand_beside_the_published_ones(tables: dict[str, Table]) -> None:
    ours = {("Ignitia", "2"): 0.41, ("Ignitia", "5 TTA"): 0.5, ("CodeCrunch", "2 test"): 0.44, ("DesertMind", "3"): 0.4}
    compared = published_tables(SOURCE, ours)
    head = {(row[0], row[1]): row[-2:] for row in compared["headlines"].rows}
    assert head["Ignitia", "2"] == ("0.4100", "+0.0064")
    assert head["Ignitia", "5 TTA"] == ("0.5000", "-0.0310")
    assert head["CodeCrunch", "2 test"] == ("0.4400", "+0.0100")
    assert head["Ignitia", "3"] == ("", "")
    for name, column in (("ignitia_three_phases", 1), ("ignitia_six_phases", 1), ("desertmind_phases", 3)):
        assert compared[name].columns == (*tables[name].columns, "reproduced", "difference")
        assert [row[:-2] for row in compared[name].rows] == list(tables[name].rows)
        assert compared[name].rows[column][-2:] in {("0.4100", "+0.0064"), ("0.4000", "-0.0867")}
    others = set(tables) - {"headlines", "ignitia_three_phases", "ignitia_six_phases", "desertmind_phases"}
    assert all(compared[name] == tables[name] for name in others)


def test_an_unknown_phase_is_refused() -> None:
    with pytest.raises(StudyError, match=r"\('Ignitia', '7'\) is no published \(system, phase\); did you mean"):
        published_tables(SOURCE, {("Ignitia", "7"): 0.5})


def test_a_missing_file_is_refused_with_the_folder_to_give(copied: Path) -> None:
    (copied / "ignitia/epochs.csv").unlink()
    with pytest.raises(StudyError, match=r"epochs\.csv does not exist; give the folder results/published"):
        published_tables(copied)


def test_a_ragged_file_is_refused_with_the_row(copied: Path) -> None:
    replace_in(copied / "ignitia/class_pixels.csv", "Landscape,", "Landscape,9,")
    with pytest.raises(StudyError, match=r"class_pixels\.csv: row 3 has not the 6 cells of the first line"):
        published_tables(copied)


def test_a_file_without_a_status_is_refused(copied: Path) -> None:
    replace_in(copied / "codecrunch/strategies.csv", "status", "state")
    with pytest.raises(StudyError, match=r"strategies\.csv has no rows with a 'source' and a 'status'"):
        published_tables(copied)


def test_a_word_where_a_number_belongs_is_refused(copied: Path) -> None:
    replace_in(copied / "ignitia/class_pixels.csv", "34.72", "34o72")
    with pytest.raises(StudyError, match="'34o72' stands where the published tables need a number"):
        published_tables(copied)


def test_a_row_that_a_table_needs_is_missed(copied: Path) -> None:
    replace_in(copied / "ignitia/hyperparameters.csv", "input width,", "input breadth,")
    with pytest.raises(StudyError, match="no row of the published tables holds {'setting': 'input width'}"):
        published_tables(copied)


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(StudyError, match="out is a file; give a folder for the tables"):
        write_published(SOURCE, tmp_path / "out")


def test_the_tables_are_written_where_torch_and_ray_cannot_be_imported(tmp_path: Path) -> None:
    code = f"""
import sys
sys.modules.update(torch=None, ray=None)
from pathlib import Path
from harness.report.published import write_published
print(len(write_published(Path({str(SOURCE)!r}), Path({str(tmp_path)!r}))))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) == len(list(tmp_path.iterdir()))
