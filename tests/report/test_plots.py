"""Plots show the numbers of the records, leave out what is not there, and are the same bytes when rebuilt."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.text import Text
from numpy.typing import NDArray
from PIL import Image

from harness.config import AblationSettings, Experiment, dump_yaml, validate_section
from harness.data.taxonomy import build_taxonomy
from harness.errors import DataError
from harness.report.interactive import figure_of, write_interactive
from harness.report.plot_data import plot_data
from harness.report.plot_effects import guessed_gain
from harness.report.plot_figures import STYLE, draw
from harness.report.plot_labels import spread_out
from harness.report.plot_shapes import Chart, HeatMap, LineChart, PlotData, Point, RowChart
from harness.report.plot_style import class_colours, file_names, ordered_colours, short
from harness.report.plots import tile_sheet, write_plots
from harness.report.records import AblationRecords, read_ablation
from harness.store import EpochRow, Record, StudyFolder

CLASSES = (
    "Trees", "Lush Bushes", "Dry Grass", "Dry Bushes", "Ground Clutter", "Flowers", "Logs", "Rocks", "Landscape", "Sky",
)  # fmt: skip
SHARES = np.array([0.035, 0.058, 0.183, 0.011, 0.042, 0.028, 0.001, 0.012, 0.24, 0.39])
EASE = np.array([0.8, 0.7, 0.75, 0.55, 0.35, 0.7, 0.3, 0.5, 0.75, 0.99])
ABSENT_IN_TEST = (4, 5, 6)


def confusions(
    quality: float, images: int, generator: np.random.Generator, absent: Sequence[int] = ()
) -> NDArray[np.int64]:
    """Matrices (images, 10, 11) of 10,000 pixels each; the better the quality, the more of them right."""
    shares = np.where(np.isin(np.arange(10), absent), 0, SHARES)
    matrices = np.zeros((images, 10, 11), np.int64)
    hits = np.clip(EASE ** (1 / (0.3 + quality)) + generator.normal(0, 0.004, 10), 0.02, 0.99)
    for image in matrices:
        for i, pixels in enumerate(generator.multinomial(10_000, shares / shares.sum())):
            wrong = (1 - hits[i]) * SHARES / SHARES.sum()
            wrong[i] += 1 - wrong.sum()
            image[i, :10] = generator.multinomial(pixels, wrong / wrong.sum())
    return matrices


class Study:
    """Writes a study of made-up trials into a folder."""

    def __init__(self, path: Path, ablation: Mapping[str, Any], seeds: int) -> None:
        path.mkdir(parents=True)
        self.folder, self.seeds = StudyFolder(path), seeds
        values = {"ablation": ablation, "scale": "full", "seeds": seeds, "dataset": "f00d"}
        settings = validate_section(AblationSettings, values, "settings")
        self.folder.settings.write_text(dump_yaml(settings.model_dump(mode="json")))
        self.record = Record(self.folder)

    def arm(
        self,
        name: str,
        quality: float,
        *,
        epochs: int = 4,
        images: int = 8,
        test: bool = True,
        encoder: bool = False,
        kept: Sequence[int] = range(10),
    ) -> None:
        """A complete trial of each seed; of 0 epochs it is one row that only scores. `kept`: classes it scores."""
        for seed in range(self.seeds):
            generator = np.random.default_rng([seed, *name.encode()])
            own = quality + generator.normal(0, 0.01)
            matrices = lacking(confusions(own, images, generator), kept)
            trial = f"{name}-s{seed}"
            for row in epoch_rows(trial, matrices, epochs, encoder, [CLASSES[i] for i in kept], generator):
                self.record.add_epoch(row)
            self.record.end(trial, len(self.record.ended), seed, "complete", picked={"arm": name})
            folder = self.folder.run(trial)
            folder.path.mkdir(parents=True)
            save(folder.confusion, matrices)
            if test:
                tested = confusions(own - 0.35, images, generator, ABSENT_IN_TEST)
                save(folder.test_confusion, lacking(tested, kept))

    def read(self) -> AblationRecords:
        return read_ablation(self.folder)


def lacking(matrices: NDArray[np.int64], kept: Sequence[int]) -> NDArray[np.int64]:
    """The rows and columns of some classes, and the column of no class."""
    return matrices[:, list(kept)][:, :, [*kept, 10]]


def own_ious(matrices: NDArray[np.int64]) -> NDArray[np.float64]:
    """IoU by class over all images, nan where the truth lacks it; written out, without harness.metrics."""
    total = matrices.sum(axis=0)
    found = []
    for i in range(len(total)):
        truth, predicted, hit = total[i].sum(), total[:, i].sum(), total[i, i]
        found.append(hit / (truth + predicted - hit) if truth else np.nan)
    return np.array(found)


def save(path: Path, matrices: NDArray[np.int64]) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, names=np.array([f"{i}.png" for i in range(len(matrices))]), matrices=matrices)
    path.write_bytes(buffer.getvalue())


def epoch_rows(
    trial: str,
    matrices: NDArray[np.int64],
    epochs: int,
    encoder: bool,
    names: Sequence[str],
    generator: np.random.Generator,
) -> list[EpochRow]:
    """Rows that rise to the score of the matrices at the last epoch but one, or a single row of epoch 0."""
    ious = own_ious(matrices)
    final = float(np.nanmean(ious))
    best = max(1, epochs - 1)
    rows = []
    for epoch in range(1, epochs + 1) if epochs else [0]:
        grown = (
            1.0
            if epoch in (0, best)
            else min(0.99, 1 - 0.5 * np.exp(-3 * epoch / best) - abs(generator.normal(0, 0.01)))
        )
        rate = 5e-4 * (1 + np.cos(np.pi * (epoch - 1) / max(1, epochs))) / 2
        lr = {"head": rate} | ({"encoder": 0.0 if epoch < 3 else rate / 10} if encoder else {})
        rows.append(
            EpochRow(
                trial=trial, epoch=epoch, score=final * grown, val_loss=1.3 - final * grown + generator.normal(0, 0.01),
                train_loss=1.2 - 1.1 * final * grown - 0.003 * epoch if epoch else None, terms={}, train_score=None,
                iou={n: None if np.isnan(v) else float(v) * grown for n, v in zip(names, ious, strict=True)},
                lr=lr if epoch else {},
                train_seconds=180.0 if epoch else 0.0, val_seconds=20.0, images=8, peak_memory_mb=None,
                done=epoch in (0, epochs),
            )
        )  # fmt: skip
    return rows


LADDER = {
    "experiment": {"training": {"epochs": 4}},
    "arms": {
        "phase1": {},
        "phase2": {"base": "phase1", "set": {"optimiser.lr": 0.002}},
        "phase2_flip": {
            "base": "phase2", "start": "phase2",
            "set": {"training.epochs": 0, "schedule": {"kind": "constant"}, "evaluation.tta": {"flip": True}},
        },
    },
    "design": {"kind": "ladder", "rungs": ["phase1", "phase2", "phase2_flip"]},
}  # fmt: skip
SHAPLEY = {
    "experiment": {"optimiser": {"kind": "sgd", "lr": 0.01}},
    "factors": {
        "adamw": {"set": {"optimiser": {"kind": "adamw", "lr": 0.001}}, "guess": "AdamW ~40 % of the gain"},
        "larger_input": {"set": {"data.input_size": [128, 224]}, "guess": "the largest gain"},
    },
    "design": {"kind": "shapley"},
}


@pytest.fixture(scope="module")
def ladder(tmp_path_factory: pytest.TempPathFactory) -> Study:
    study = Study(tmp_path_factory.mktemp("studies") / "ladder", LADDER, seeds=3)
    study.arm("phase1", 0.30)
    study.arm("phase2", 0.55, encoder=True)
    study.arm("phase2_flip", 0.56, epochs=0)
    return study


@pytest.fixture(scope="module")
def plots(ladder: Study) -> PlotData:
    return plot_data(ladder.read())


@pytest.fixture
def study(tmp_path: Path) -> Callable[..., Study]:
    return lambda ablation, seeds=3: Study(tmp_path / "study", ablation, seeds)


def chart(data: PlotData, name: str) -> Any:
    (found,) = [c for c in data.charts if c.name == name]
    return found


def reason(data: PlotData, name: str) -> str:
    (found,) = [one.reason for one in data.left_out if one.name == name]
    return found


def points(drawn: LineChart | RowChart, name: str, panel: int = 0) -> dict[float | str, Point]:
    return {p.at: p for s in drawn.panels[panel].series if s.name == name for p in s.points}


def scores(study: Study, arm: str) -> NDArray[np.float64]:
    """mIoU of each seed, from its matrices."""
    return np.array([np.nanmean(own_ious(m)) for m in study.read().matrices[arm].values()])


def test_a_difference_is_the_mean_over_pairs_of_seeds_with_students_interval(ladder, plots):
    found = {p.at: p for s in chart(plots, "differences").panels[0].series for p in s.points}
    gains = scores(ladder, "phase2") - scores(ladder, "phase1")
    assert found["phase2"].value == pytest.approx(gains.mean())
    # t(0.975, 2) = 4.302653
    half = 4.302653 * gains.std(ddof=1) / np.sqrt(3)
    assert (found["phase2"].low, found["phase2"].high) == pytest.approx((gains.mean() - half, gains.mean() + half))


def test_the_band_of_a_forest_plot_is_the_deviation_between_seeds(ladder, plots):
    variances = [scores(ladder, arm).var(ddof=1) for arm in ("phase1", "phase2", "phase2_flip")]
    assert chart(plots, "differences").band == pytest.approx(np.sqrt(np.mean(variances)))


def test_each_bar_of_a_ladder_begins_where_the_one_before_ends(ladder, plots):
    drawn = chart(plots, "ladder")
    bars = {p.at: p for s in drawn.panels[0].series if s.style == "bar" for p in s.points}
    means = [scores(ladder, arm).mean() for arm in ("phase1", "phase2", "phase2_flip")]
    assert drawn.rows == ("phase1", "phase2", "phase2_flip", "first to last")
    assert (bars["phase2"].start, bars["phase2"].value) == pytest.approx(means[:2])
    assert (bars["phase2_flip"].start, bars["phase2_flip"].value) == pytest.approx(means[1:])
    assert (bars["first to last"].start, bars["first to last"].value) == pytest.approx((means[0], means[2]))


def test_the_verdicts_are_told_by_colour(plots):
    series = {s.name: s for s in chart(plots, "ladder").panels[0].series if s.name}
    assert [p.at for p in series["better"].points] == ["phase2"]
    assert [p.at for p in series["not resolved"].points] == ["phase2_flip"]
    assert series["better"].colour != series["not resolved"].colour


def test_class_bars_hold_the_mean_iou_over_seeds(ladder, plots):
    drawn = chart(plots, "class_iou")
    assert [panel.title for panel in drawn.panels] == [*CLASSES, "mIoU"]
    ious = np.mean([own_ious(m) for m in ladder.read().matrices["phase2"].values()], axis=0)
    assert [points(drawn, "", i)["phase2"].value for i in range(11)] == pytest.approx([*ious, ious.mean()])


def test_with_fewer_than_three_seeds_class_intervals_are_over_images_and_say_so(study):
    made = study(LADDER, seeds=1)
    made.arm("phase1", 0.3)
    made.arm("phase2", 0.5)
    drawn = chart(plot_data(made.read()), "class_iou")
    p = points(drawn, "", 0)["phase1"]
    assert p.low < p.value < p.high
    assert "Mean over 1 seed; 95 % intervals: a bootstrap over images." in drawn.notes


def test_the_test_truth_lacks_classes_and_the_plots_say_so(plots):
    drawn = chart(plots, "validation_test")
    clutter = CLASSES.index("Ground Clutter")
    assert set(points(drawn, "validation", clutter)) == {"phase1", "phase2", "phase2_flip"}
    assert points(drawn, "test", clutter) == {}
    assert any("lacks Ground Clutter, Flowers and Logs" in note for note in drawn.notes)
    shares = chart(plots, "class_shares")
    assert points(shares, "test")["Logs"].label == "absent"
    assert sum(p.value for p in points(shares, "validation").values()) == pytest.approx(100)


def test_the_journey_has_a_line_for_each_class_over_the_rungs(ladder, plots):
    drawn = chart(plots, "class_journey")
    sky = [p.value for s in drawn.panels[0].series if s.name == "Sky" for p in s.points]
    means = [np.mean([own_ious(m)[9] for m in ladder.read().matrices[a].values()]) for a in LADDER["design"]["rungs"]]
    assert drawn.panels[0].ticks == tuple(LADDER["design"]["rungs"])
    assert sky == pytest.approx(means)


def test_curves_have_a_thin_line_for_each_seed_their_mean_and_the_best_epochs(ladder, plots):
    loss, score, rate, classes = chart(plots, "curves_phase2").panels
    thin = [s for s in score.series if s.style == "thin"]
    (mean,) = [s for s in score.series if s.style == "line"]
    assert len(thin) == 3
    assert mean.points[0].value == pytest.approx(np.mean([s.points[0].value for s in thin]))
    (best,) = [s for s in score.series if s.name == "best epoch"]
    assert [p.at for p in best.points] == [3, 3, 3]
    assert [p.value for p in best.points] == pytest.approx(scores(ladder, "phase2").tolist())
    assert {s.name for s in loss.series} == {"train", "validation", "best epoch"}
    assert [s.name for s in classes.series] == list(CLASSES)


def test_a_frozen_group_is_a_gap_in_its_learning_rate(plots):
    rate = chart(plots, "curves_phase2").panels[2]
    (encoder,) = [s for s in rate.series if s.name == "encoder" and s.style == "line"]
    assert [np.isnan(p.value) for p in encoder.points] == [True, True, False, False]


def test_arms_with_the_same_schedule_share_a_panel(study):
    made = study(SHAPLEY, seeds=1)
    for arm in ("baseline", "adamw", "larger_input"):
        made.arm(arm, 0.4)
    made.arm("all", 0.5, encoder=True)
    drawn = chart(plot_data(made.read()), "learning_rates")
    assert [panel.title for panel in drawn.panels] == ["baseline + 2 alike", "all"]
    assert any("baseline, adamw and larger_input" in note for note in drawn.notes)


def test_cost_is_summed_from_rung_to_rung(plots):
    (line,) = chart(plots, "diminishing_returns").panels[0].series
    # 4 epochs of 200 s each, then one validation of 20 s
    assert [p.at for p in line.points] == pytest.approx([800 / 60, 1600 / 60, 1620 / 60])
    assert [p.label for p in line.points] == LADDER["design"]["rungs"]


def test_arms_of_other_classes_are_compared_class_by_class_where_both_have_them(study):
    ablation = LADDER | {"design": {"kind": "ladder", "rungs": ["phase1", "phase2"]}}
    ablation["arms"] = LADDER["arms"] | {"phase2": {"set": {"taxonomy": {"kind": "named", "name": "falcon7"}}}}
    made = study(ablation)
    made.arm("phase1", 0.3)
    made.arm("phase2", 0.5, kept=[0, 1, 2, 3, 7, 8, 9])
    data = plot_data(made.read())
    drawn = chart(data, "class_differences")
    own, other = (
        np.mean([own_ious(m) for m in made.read().matrices[arm].values()], axis=0) for arm in ("phase2", "phase1")
    )
    assert drawn.columns == tuple(CLASSES[i] for i in (0, 1, 2, 3, 7, 8, 9))
    assert [p.value for p in drawn.cells[0]] == pytest.approx((own - other[[0, 1, 2, 3, 7, 8, 9]]).tolist())
    assert any(
        "other classes than that of phase1" in note and "phase2" in note for note in chart(data, "differences").notes
    )


def test_an_arm_that_chose_on_the_test_frames_is_not_compared_with_one_that_did_not(study):
    ablation = LADDER | {"design": {"kind": "ladder", "rungs": ["phase1", "phase2"]}}
    ablation["arms"] = LADDER["arms"] | {"phase2": {"set": {"protocol.select_on_test": True}}}
    made = study(ablation)
    made.arm("phase1", 0.3)
    made.arm("phase2", 0.5)
    data = plot_data(made.read())
    assert reason(data, "differences").startswith("needs two arms")
    assert "Best epoch chosen and scored on the test frames: phase2." in chart(data, "class_iou").notes


def test_the_same_predictions_stand_in_a_row_for_each_rule(ladder, plots):
    drawn = chart(plots, "scoring_rules")
    assert points(drawn, "phase1")["miou"].value == pytest.approx(scores(ladder, "phase1").mean())
    totals = [m.sum(axis=0) for m in ladder.read().matrices["phase1"].values()]
    right = np.mean([np.trace(t[:, :10]) / t.sum() for t in totals])
    assert points(drawn, "phase1")["accuracy"].value == pytest.approx(right)


def test_shapley_bars_add_up_and_stand_beside_what_was_guessed(study):
    made = study(SHAPLEY)
    for arm, quality in {"baseline": 0.3, "adamw": 0.4, "larger_input": 0.5, "all": 0.7}.items():
        made.arm(arm, quality, test=False)
    data = plot_data(made.read())
    drawn = chart(data, "shapley")
    v = {arm: scores(made, arm).mean() for arm in ("baseline", "adamw", "larger_input", "all")}
    bars = {p.at: p.value for s in drawn.panels[0].series if s.style == "bar" for p in s.points}
    assert bars["adamw"] == pytest.approx((v["adamw"] - v["baseline"] + v["all"] - v["larger_input"]) / 2)
    assert (
        bars["adamw"] + bars["larger_input"]
        == pytest.approx(bars["all factors"])
        == pytest.approx(v["all"] - v["baseline"])
    )
    guesses = points(drawn, "authors' guess")
    assert {name: p.value for name, p in guesses.items()} == pytest.approx({"adamw": 0.4 * bars["all factors"]})
    assert any("larger_input: the largest gain" in note for note in drawn.notes)
    assert reason(data, "ladder") == "the design is no ladder"
    assert reason(data, "validation_test").startswith("no arm has test confusion matrices")


@pytest.mark.parametrize(
    ("text", "gain"),
    [
        ("AdamW ~40 % of the gain", 0.08),
        ("+0.13 mIoU, the largest gain", 0.13),
        ("-0.005", -0.005),
        ("0.4380 on the test set", None),
        ("3 % better", None),
        ("the largest gain", None),
        (None, None),
    ],
)
def test_a_guess_is_marked_only_where_it_names_a_gain(text, gain):
    assert guessed_gain(text, 0.2) == (None if gain is None else pytest.approx(gain))


def test_a_study_without_trials_has_no_plot_and_says_why(study, tmp_path):
    written = write_plots(study(LADDER).read(), tmp_path / "out")
    assert [path.name for path in written] == ["plots.html", "plots_left_out.txt"]
    assert "differences: needs two arms" in written[1].read_text()
    assert "complete: none" in written[0].read_text()


def test_an_arm_of_no_epochs_has_no_curves_and_an_unfinished_one_is_named(study):
    made = study(LADDER)
    made.arm("phase1", 0.3, epochs=0)
    made.arm("phase2", 0.5)
    data = plot_data(made.read())
    assert reason(data, "curves_phase1") == "arm 'phase1' trains for 0 epochs"
    assert any("phase2_flip" in note and "Left out" in note for note in chart(data, "ladder").notes)


def test_constant_unknown_and_single_rates_and_classes_that_never_occur_can_be_drawn(study):
    made = study(LADDER, seeds=1)
    empty = np.zeros((1, 10, 11), np.int64)
    empty[0, 9, 9] = 5
    for name, lr, epochs in (
        ("phase1", {"head": 1e-3}, 2),
        ("phase2", {}, 1),
        ("phase2_flip", {"head": 0.0}, 1),
    ):
        rows = epoch_rows(name, empty, epochs, False, CLASSES, np.random.default_rng(0))
        for row in rows:
            made.record.add_epoch(row.model_copy(update={"lr": lr}))
        made.record.end(name, 0, 0, "complete", picked={"arm": name})
        made.folder.run(name).path.mkdir(parents=True)
        save(made.folder.run(name).confusion, empty)
    data = plot_data(made.read())
    assert [panel.title for panel in chart(data, "class_iou").panels] == ["Sky", "mIoU"]
    for drawn in data.charts:
        boxes(drawn, lambda ax: ax.texts)
        figure_of(drawn)


BUILD = """
import sys
from pathlib import Path
from harness.report.plots import write_plots
from harness.report.records import read_ablation
from harness.store import StudyFolder
write_plots(read_ablation(StudyFolder(Path(sys.argv[1]))), Path(sys.argv[2]))
print([name for name in ("torch", "ray", "matplotlib.pyplot") if name in sys.modules])
"""


@pytest.fixture(scope="module")
def built(ladder: Study, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The plots of the ladder, written by two processes."""
    folders = [tmp_path_factory.mktemp("built") / str(i) for i in range(2)]
    for folder in folders:
        command = [sys.executable, "-W", "error", "-c", BUILD, str(ladder.folder.path), str(folder)]
        ran = subprocess.run(command, capture_output=True, text=True)
        assert (ran.stdout.strip(), ran.stderr) == ("[]", "")
    return folders


def test_two_processes_write_the_same_bytes(built):
    first, second = ({path.name: path.read_bytes() for path in folder.iterdir()} for folder in built)
    assert first.keys() == second.keys()
    assert [name for name in first if first[name] != second[name]] == []


def test_every_plot_is_a_png_of_150_dpi_and_an_svg_without_date_or_maker(built, plots):
    names = {path.name for path in built[0].iterdir()}
    expected = {f"{c.name}.{kind}" for c in plots.charts for kind in ("png", "svg")}
    assert names == expected | {"plots.html", "plots_left_out.txt"}
    for c in plots.charts:
        with Image.open(built[0] / f"{c.name}.png") as image:
            assert image.width == 1080
            assert set(image.info) == {"dpi"}
            assert image.info["dpi"] == pytest.approx((150, 150), abs=0.1)
        svg = (built[0] / f"{c.name}.svg").read_text()
        assert "<dc:date>" not in svg and "<dc:creator>" not in svg


def test_the_html_holds_the_library_once_forbids_requests_and_stays_below_6_mb(built, plots):
    page = (built[0] / "plots.html").read_text()
    assert len(page.encode()) < 6_000_000
    assert page.count("* plotly.js v") == 1
    assert "default-src 'none'" in page and "prefers-color-scheme: dark" in page
    assert not re.search(r"<(script|link|img|iframe)[^>]*(src|href)=", page)
    assert all(f'id="{c.name}-plot"' in page for c in plots.charts)
    assert "curves_phase2_flip: arm &#x27;phase2_flip&#x27; trains for 0 epochs" in page


def test_the_interactive_figures_hold_the_same_numbers(plots):
    bars = figure_of(chart(plots, "ladder")).data
    ends = {
        row: base + length for t in bars if t.type == "bar" for row, base, length in zip(t.y, t.base, t.x, strict=True)
    }
    own = {p.at: p.value for s in chart(plots, "ladder").panels[0].series if s.style == "bar" for p in s.points}
    assert ends == pytest.approx(own)
    (heat,) = figure_of(chart(plots, "class_differences")).data
    assert heat.z[0][0] == pytest.approx(100 * chart(plots, "class_differences").cells[0][0].value)


def test_a_name_cannot_break_out_of_the_html(plots, tmp_path):
    evil = "</script><b>x"
    panel = LineChart("lines", evil, (chart(plots, "class_journey").panels[0],), notes=(evil,))
    heat = HeatMap("heat", evil, evil, (evil,), (evil,), ((Point(evil, 0.1),),))
    page = write_interactive(PlotData(evil, (panel, heat), ()), tmp_path).read_text()
    assert page.count("</script>") == 2
    assert "<b>x" not in page.replace("<\\/script><b>x", "")


def boxes(drawn: Chart, which: Callable[[Any], list[Any]]) -> list[list[Any]]:
    """Where texts of each pair of axes stand in pixels, once drawn; without the lines that lead to them."""
    with matplotlib.rc_context(STYLE):
        figure = draw(drawn)
        figure.draw_without_rendering()
        return [
            [Text.get_window_extent(t) for t in which(ax) if t.get_text()]
            for part in figure.subfigs
            for ax in part.axes
        ]


def overlaps(found: list[Any]) -> int:
    return sum(a.overlaps(b) for i, a in enumerate(found) for b in found[:i])


@pytest.fixture(scope="module")
def nine(tmp_path_factory: pytest.TempPathFactory) -> PlotData:
    """Nine arms with names of 20 letters, the last ones close together."""
    names = [f"phase{i}_" + "boundary_loss" for i in range(1, 10)]
    arms = {name: {"set": {"optimiser.lr": 0.001 * (i + 1)}} for i, name in enumerate(names)}
    study = Study(
        tmp_path_factory.mktemp("nine") / "nine",
        {"arms": arms, "design": {"kind": "ladder", "rungs": names}},
        1,
    )
    for i, name in enumerate(names):
        study.arm(name, 0.3 + 0.4 * (1 - 0.5**i), epochs=2 if i < 4 else 1, images=4)
    return plot_data(study.read())


@pytest.mark.parametrize("name", ["ladder", "class_iou", "validation_test", "scoring_rules", "class_differences"])
def test_names_of_nine_arms_and_ten_classes_do_not_cover_one_another(nine, name):
    drawn = chart(nine, name)
    for found in boxes(drawn, lambda ax: ax.get_yticklabels()):
        assert overlaps(found) == 0
    titles = [box for found in boxes(drawn, lambda ax: [ax._left_title]) for box in found]
    assert overlaps(titles) == 0


@pytest.mark.parametrize("name", ["class_journey", "diminishing_returns"])
def test_labels_beside_lines_do_not_cover_one_another(nine, name):
    (found,) = boxes(chart(nine, name), lambda ax: ax.texts)
    assert len(found) >= 9
    assert overlaps(found) == 0


def test_heights_are_spread_as_little_as_needed():
    assert spread_out([0.5, 0.5], 0.1) == pytest.approx([0.45, 0.55])
    assert spread_out([0.9, 0.1], 0.1) == pytest.approx([0.9, 0.1])
    assert spread_out([1.0, 1.0, 0.2], 0.1) == pytest.approx([0.9, 1.0, 0.2])


def test_file_names_are_safe_and_no_two_are_alike():
    found = file_names("curves", ["a/b", "a b", "A b", "../../etc", "adamw+flip"])
    assert list(found.values()) == [
        "curves_a_b",
        "curves_a_b-2",
        "curves_A_b-3",
        "curves_etc",
        "curves_adamw+flip",
    ]


def test_long_names_keep_their_ends():
    assert short("class_weights+augmentation+larger_input") == "class_weights…larger_input"
    assert len(short("x" * 99)) == 26
    assert short("phase4_boundary_loss") == "phase4_boundary_loss"


@pytest.mark.parametrize("name", ["falcon10", "falcon7", "ignitia10"])
def test_classes_have_the_colours_of_their_taxonomy_but_for_those_too_light_for_a_line(name):
    experiment = validate_section(Experiment, {"taxonomy": {"kind": "named", "name": name}}, "experiment")
    taxonomy, found = build_taxonomy(experiment.taxonomy), class_colours(experiment)
    for own, colour in zip(taxonomy.names, taxonomy.colours.tolist(), strict=True):
        shown = [int(found[own][i : i + 2], 16) for i in (1, 3, 5)]
        assert shown == colour or (own == "Dry Grass" and max(np.subtract(colour, shown)) < 20)


def test_a_custom_taxonomy_brings_its_own_colours():
    classes = [{"name": n, "ids": [i], "colour": [10 * i, 20, 30]} for i, n in enumerate(("Mud", "Sky"), 1)]
    experiment = validate_section(Experiment, {"taxonomy": {"kind": "custom", "classes": classes}}, "experiment")
    assert class_colours(experiment) == {"Mud": "#0a141e", "Sky": "#14141e"}


def test_ordered_colours_get_lighter():
    shades = [
        sum(int(c[i : i + 2], 16) * w for i, w in ((1, 0.2126), (3, 0.7152), (5, 0.0722))) for c in ordered_colours(9)
    ]
    assert shades == sorted(shades)


def pictures(count: int) -> list[NDArray[np.uint8]]:
    return [np.full((270, 480, 3), 40 * i, np.uint8) for i in range(count)]


def test_a_tile_sheet_is_a_png_of_a_block_for_each_frame():
    columns = {name: pictures(2) for name in ("image", "truth", "phase1", "phase2", "phase3")}
    sheet = tile_sheet(columns, ["0000060", "0000061"], {"Trees": "#145a28"})
    assert sheet == tile_sheet(columns, ["0000060", "0000061"], {"Trees": "#145a28"})
    with Image.open(io.BytesIO(sheet)) as image:
        assert image.format == "PNG" and image.width == 1080
        colours = {colour for _, colour in image.convert("RGB").getcolors(1 << 20)}
        assert {(0, 0, 0), (40, 40, 40), (0x14, 0x5A, 0x28)} <= colours


def test_pictures_of_another_number_or_type_are_refused():
    with pytest.raises(DataError, match="column 'truth' has 1 pictures for 2 titles; give 2"):
        tile_sheet({"image": pictures(2), "truth": pictures(1)}, ["a", "b"])
    with pytest.raises(DataError, match=r"shape \(270, 480\) and type uint8; give RGB"):
        tile_sheet({"image": [pictures(1)[0][..., 0]]}, ["a"])
    with pytest.raises(DataError, match="0 columns and 1 titles"):
        tile_sheet({}, ["a"])
