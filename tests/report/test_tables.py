"""Tables hold the right numbers, at any width, from a study's folder alone."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from harness.config import Experiment, ReplicateSettings, SearchSettings, Space, dump_yaml, validate_section
from harness.report import per_image_rows, replicates_summary, score_tables, scores_as_values, search_summary
from harness.store import StudyFolder, TrialRow

SPACE = {
    "experiment": {"training": {"epochs": 9}},
    "parameters": {
        "lr": {"kind": "float", "field": "optimiser.lr", "low": 1e-4, "high": 1e-1, "log": True},
        "batch": {"kind": "int", "field": "training.batch_size", "low": 1, "high": 8},
    },
}


def text(renderable, width: int = 200) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(renderable)
    return console.file.getvalue()


def trial(number: int, outcome: str, score: float | None, epochs: int, **more) -> TrialRow:
    values = {"seed": 0, "picked": {"lr": 0.001 * (number + 1), "batch": number + 1}, "error": None} | more
    best = None if score is None else max(1, epochs - 1)
    return TrialRow(
        trial=f"t{number}", number=number, outcome=outcome, score=score, best_epoch=best, epochs=epochs, seconds=60.0,
        **values,
    )  # fmt: skip


@pytest.fixture
def study(tmp_path: Path) -> StudyFolder:
    """A search of five trials, written by hand."""
    (tmp_path / "hunt").mkdir()
    folder = StudyFolder(tmp_path / "hunt")
    settings = SearchSettings(space=validate_section(Space, SPACE, "space"), seed=0, dataset="f00d")
    folder.settings.write_text(dump_yaml(settings.model_dump(mode="json")))
    rows = [
        trial(0, "complete", 0.31, 9),
        trial(1, "stopped", 0.95, 1),
        trial(2, "complete", 0.62, 9),
        trial(3, "failed", 0.99, 2, error="the loss is not finite"),
        trial(4, "stopped", 0.41, 3),
    ]
    for row in rows:
        folder.trials.append(row)
    return folder


def line_of(shown: str, start: str) -> list[str]:
    (line,) = [line for line in shown.splitlines() if line.startswith(start)]
    return line.removeprefix(start).split()


def test_the_best_trials_stand_in_order_complete_before_stopped_and_failed_ones_not(study):
    shown = text(search_summary(study))
    assert line_of(shown, "trial ") == ["2", "0", "1", "4"]
    assert line_of(shown, "val mIoU") == ["0.6200", "0.3100", "0.9500", "0.4100"]
    assert line_of(shown, "outcome") == ["complete", "complete", "stopped", "stopped"]
    assert line_of(shown, "lr") == ["0.003", "0.001", "0.002", "0.005"]
    assert line_of(shown, "batch") == ["3", "1", "2", "5"]
    assert " ".join(line_of(shown, "best epoch")) == "8 of 9 8 of 9 1 of 1 2 of 3"


def test_the_cost_is_counted_over_all_trials(study):
    shown = text(search_summary(study))
    assert "5 trials, 2 stopped early; 24 epochs instead of 45; 5.0 minutes" in shown
    assert "the first is the best of the 2 scores of trials trained to their end" in " ".join(shown.split())
    assert "Trial 1 had 0.9500, and was stopped after 1 epoch: it stands behind them." in " ".join(shown.split())


def test_the_default_stands_beside_the_best_even_when_it_is_not_among_them(study):
    for number in range(5, 10):
        study.trials.append(trial(number, "complete", 0.7 + number / 100, 9))
    assert line_of(text(search_summary(study)), "trial ") == ["9", "8", "7", "6", "5", "0"]


def test_a_study_without_a_score_says_so(study):
    study.trials.path.write_text("")
    assert "no trial has ended with a score" in text(search_summary(study))


@pytest.fixture
def seeds(tmp_path: Path) -> StudyFolder:
    """Three seeds, one of them failed."""
    (tmp_path / "final").mkdir()
    folder = StudyFolder(tmp_path / "final")
    settings = ReplicateSettings(arms={"final": Experiment()}, seeds=3, dataset="f00d")
    folder.settings.write_text(dump_yaml(settings.model_dump(mode="json")))
    scores = [0.5, 0.6, None]
    for seed, score in enumerate(scores):
        outcome, error = ("failed", "out of memory") if score is None else ("complete", None)
        folder.trials.append(trial(seed, outcome, score, 9, seed=seed, picked={"arm": "final"}, error=error))
    return folder


def test_the_mean_of_the_seeds_comes_with_students_interval(seeds):
    shown = text(replicates_summary(seeds))
    # t(0.975, 1) = 12.706, spread 0.0707, half width 12.706 * 0.05
    assert "val mIoU 0.5500, 95 % interval -0.0853 to 1.1853 (t, 2 seeds), spread 0.0707" in shown
    assert "out of memory" in shown


def test_one_seed_has_no_interval(seeds):
    seeds.trials.path.write_text(seeds.trials.path.read_text().splitlines()[0] + "\n")
    assert "val mIoU 0.5000, one seed: no interval" in text(replicates_summary(seeds))


CLASSES = ("Trees", "Sky", "Rocks")
# per image, truth in rows and prediction in columns, the last column for predictions of no class
MATRICES = np.array(
    [
        [[6, 2, 0, 0], [1, 7, 0, 0], [0, 0, 0, 0]],
        [[0, 0, 0, 0], [0, 8, 1, 1], [0, 0, 0, 0]],
    ],
    np.int64,
)


def test_scores_are_the_fractions_of_the_summed_matrix():
    values = scores_as_values(("a", "b"), MATRICES, CLASSES)
    assert values["per_class"]["Trees"]["iou"] == pytest.approx(6 / 9)
    assert values["per_class"]["Sky"]["iou"] == pytest.approx(15 / 20)
    assert values["per_class"]["Sky"]["pixels"] == 18
    assert values["score"]["miou"] == pytest.approx((6 / 9 + 15 / 20) / 2)
    assert values["score"]["accuracy"] == pytest.approx(21 / 26)
    shown = text(score_tables(values, "title"))
    assert line_of(shown, "Trees")[2:4] == ["0.6667", "0.8000"]
    assert f"mIoU {(6 / 9 + 15 / 20) / 2:.4f}" in shown


def test_an_images_mean_is_taken_over_the_classes_of_its_truth():
    values = scores_as_values(("a", "b"), MATRICES, CLASSES)
    shown = text(per_image_rows(values))
    assert line_of(shown, "a ") == ["0.8125", f"{(6 / 9 + 7 / 10) / 2:.4f}"]
    assert line_of(shown, "b ") == ["0.8000", "0.8000"]


@pytest.mark.parametrize("width", [40, 80])
def test_a_narrow_terminal_breaks_nothing(study, seeds, width):
    values = scores_as_values(("a", "b"), MATRICES, CLASSES)
    for renderable in (search_summary(study), replicates_summary(seeds), score_tables(values, "t")):
        shown = text(renderable, width)
        assert max(map(len, shown.splitlines())) <= width
    assert "0.6200" in text(search_summary(study), max(width, 80))


def test_a_folder_is_read_without_torch_ray_and_optuna(study):
    code = (
        "import sys; from pathlib import Path; from harness.report import search_summary; "
        "from harness.store import StudyFolder; search_summary(StudyFolder(Path(sys.argv[1]))); "
        "print([m for m in ('torch', 'ray', 'optuna') if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code, str(study.path)], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_control_characters_in_errors_and_labels_do_not_reach_the_screen(study, seeds):
    study.trials.append(trial(5, "complete", 0.9, 9).model_copy(update={"picked": {"lr": "lo\x1b[31mw", "batch": 1}}))
    shown = text(search_summary(study))
    assert line_of(shown, "lr")[0] == r"lo\x1b[31mw"
    seeds.trials.append(trial(7, "failed", None, 1, error="no \x1b[2Jroom\x07"))
    both = shown + text(replicates_summary(seeds))
    assert r"no \x1b[2Jroom\x07" in both and all(c.isprintable() or c == "\n" for c in both)
