"""Every team's convention, against cases by hand, plain loops over masks, and figures of real frames."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import cv2
import numpy as np
import pytest

from harness.errors import DataError
from harness.metrics import CONVENTIONS, confusion_matrix, per_image_table, score_by_convention

IDS = {100: 0, 200: 1, 300: 2, 500: 3, 550: 4, 600: 5, 700: 6, 800: 7, 7100: 8, 10000: 9}
NAMES = (
    "Trees",
    "Lush Bushes",
    "Dry Grass",
    "Dry Bushes",
    "Ground Clutter",
    "Flowers",
    "Logs",
    "Rocks",
    "Landscape",
    "Sky",
)
FILES = [f"{number:07d}.png" for number in range(60, 74)]

REFERENCE_ROWS = {
    "miou": "dataset mIoU over classes in the truth",
    "union_present": "dataset mIoU over classes with a non-empty union",
    "all_classes": "dataset mIoU over all ten classes, empty union = 0",
    "per_image_union": "mean over images of mean over non-empty unions (DesertMind)",
    "batch2_union": "mean over batches of 2 in file order of mean over non-empty unions (Ignitia, native raster)",
    "ignitia_dice": "Dice, mean over batches of 2, absent and unpredicted = 1 (Ignitia, native raster)",
    "micro": "micro IoU: sum of intersections / sum of unions",
    "per_image_positive": "mean over images of mean over classes with IoU > 0",
    "per_image_truth": "mean over images of mean over classes in the truth",
    "frequency_weighted": "frequency-weighted IoU",
    "accuracy": "pixel accuracy",
    "mean_class_accuracy": "mean class accuracy over classes in the truth",
}

# Three images of classes a, b, c, d; c and d are not in the truth, the second image predicts one pixel of c.
THREE = np.array(
    [
        [[6, 2, 0, 0, 0], [0, 2, 0, 0, 0], [0] * 5, [0] * 5],
        [[9, 0, 1, 0, 0], [0, 0, 0, 0, 0], [0] * 5, [0] * 5],
        [[0, 4, 0, 0, 0], [0, 6, 0, 0, 0], [0] * 5, [0] * 5],
    ]
)
BY_HAND = {
    "miou": (15 / 22 + 8 / 14) / 2,
    "union_present": (15 / 22 + 8 / 14 + 0) / 3,
    "all_classes": (15 / 22 + 8 / 14 + 0 + 0) / 4,
    "absent_one": (15 / 22 + 8 / 14 + 0 + 1) / 4,
    "codecrunch7": math.nan,
    "per_image_union": ((6 / 8 + 2 / 4) / 2 + (9 / 10 + 0) / 2 + (0 + 6 / 10) / 2) / 3,
    "per_image_truth": ((6 / 8 + 2 / 4) / 2 + 9 / 10 + (0 + 6 / 10) / 2) / 3,
    "per_image_positive": ((6 / 8 + 2 / 4) / 2 + 9 / 10 + 6 / 10) / 3,
    "desertmind_per_class": ((6 / 8 + 9 / 10 + 0) / 3 + (2 / 4 + 6 / 10) / 2 + 0) / 3,
    "batch2_union": ((15 / 18 + 2 / 4 + 0) / 3 + (0 + 6 / 10) / 2) / 2,
    "ignitia_per_class": ((15 / 18 + 0) / 2 + (2 / 4 + 6 / 10) / 2 + 0) / 3,
    "ignitia_dice": ((30 / 33 + 4 / 6 + 0 + 1) / 4 + (0 + 12 / 16 + 1 + 1) / 4) / 2,
    "micro": 23 / (22 + 14 + 1),
    "frequency_weighted": (22 * 15 / 22 + 8 * 8 / 14) / 30,
    "accuracy": 23 / 30,
    "mean_class_accuracy": (15 / 22 + 8 / 8) / 2,
}


def read_class_map(file: Path) -> np.ndarray:
    raw = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
    assert set(np.unique(raw).tolist()) <= set(IDS)
    classes = np.zeros(raw.shape, dtype=np.uint8)
    for raw_id, index in IDS.items():
        classes[raw == raw_id] = index
    return classes


@pytest.fixture(scope="module")
def real(falcon_frames: Path) -> dict[str, np.ndarray]:
    """Stored counts (14, 10, 11) of both teams' predictions, training frames first, in file order."""
    truth = [
        read_class_map(falcon_frames / ("train" if name < "0000070" else "val") / "Segmentation" / name)
        for name in FILES
    ]
    stored = {}
    for team in ("predictions", "predictions_codecrunch"):
        maps = [read_class_map(falcon_frames / "reference" / team / name) for name in FILES]
        stored[team] = np.stack([confusion_matrix(t, p, 10) for t, p in zip(truth, maps, strict=True)])
    return stored


def read_csv(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


@pytest.mark.parametrize("name", sorted(BY_HAND))
def test_three_images_score_as_by_hand(name):
    # Only Ignitia's smoothing of 1e-6, against a class of one pixel, differs from the plain fractions.
    assert CONVENTIONS[name](THREE, "abcd") == pytest.approx(BY_HAND[name], abs=1e-6, nan_ok=True)


def test_every_convention_is_worked_by_hand_and_has_a_sentence():
    assert set(CONVENTIONS) == set(BY_HAND)
    for name, convention in CONVENTIONS.items():
        assert convention.name == name
        assert convention.definition.endswith(".")
        assert len(convention.definition) > 30


def test_all_conventions_at_once_are_each_by_itself():
    found = score_by_convention(THREE, "abcd")
    assert found == pytest.approx(BY_HAND, abs=1e-6, nan_ok=True)
    assert all(type(score) is float for score in found.values())


@pytest.mark.parametrize("team", ["predictions", "predictions_codecrunch"])
@pytest.mark.parametrize("name", sorted(REFERENCE_ROWS))
def test_real_frames_score_to_the_last_printed_digit(real, falcon_frames, team, name):
    rows = read_csv(falcon_frames / "reference" / "conventions.csv")
    printed = {row["convention (10 classes, 960x540)"]: row[team] for row in rows}
    assert len(printed) == len(REFERENCE_ROWS)
    assert f"{CONVENTIONS[name](real[team], NAMES):.6f}" == printed[REFERENCE_ROWS[name]]


@pytest.mark.parametrize("team", ["predictions", "predictions_codecrunch"])
def test_real_frames_without_the_three_classes_in_truth_score_alike_under_codecrunch7_and_miou(real, team):
    scores = score_by_convention(real[team], NAMES)
    assert scores["codecrunch7"] == pytest.approx(scores["miou"], abs=1e-12)


def test_real_frames_repeat_every_published_column_of_every_image(real, falcon_frames):
    rows = read_csv(falcon_frames / "reference" / "per_image_metrics.csv")
    table = {name: np.nan_to_num(values) for name, values in per_image_table(real["predictions"]).items()}
    assert [row["Filename"] for row in rows] == FILES
    for image, row in enumerate(rows):
        assert float(row.pop("PixelAccuracy")) == pytest.approx(table["accuracy"][image], rel=1e-15, abs=0)
        for column, score in (("mIoU_classwise", "iou"), ("mDice_classwise", "dice")):
            values = table[score][image]
            assert float(row.pop(column)) == pytest.approx(values[values > 0].mean(), rel=1e-15, abs=0)
        del row["Filename"]
        assert len(row) == 40
        for column, printed in row.items():
            name, score = column.rsplit("_", 1)
            # "Background" is a class without a raw id: no pixel is ever of it, so every printed value is 0.
            value = 0.0 if name == "Background" else table[score.lower()][image, NAMES.index(name)]
            assert float(printed) == pytest.approx(value, rel=1e-15, abs=0), (column, image)


def plain_scores(truth: np.ndarray, prediction: np.ndarray, classes: int, batch: int) -> dict[str, float]:
    """The DesertMind (batch 1) and Ignitia (batch 2) rules, written out in loops over boolean masks."""
    headline, by_class, dices = [], [[] for _ in range(classes)], []
    for start in range(0, len(truth), batch):
        t, p = truth[start : start + batch], prediction[start : start + batch]
        ious, dice = [], []
        for k in range(classes):
            both, either = ((t == k) & (p == k)).sum(), ((t == k) | (p == k)).sum()
            dice.append((2 * both + 1e-6) / ((t == k).sum() + (p == k).sum() + 1e-6))
            if either:
                ious.append(both / either)
                by_class[k].append(both / either)
        headline.append(sum(ious) / len(ious))
        dices.append(sum(dice) / classes)
    classwise = [sum(values) / len(values) for values in by_class if values]
    return {
        "headline": sum(headline) / len(headline),
        "per_class": sum(classwise) / len(classwise),
        "dice": sum(dices) / len(dices),
    }


@pytest.mark.parametrize("images", [1, 2, 5])
def test_desertmind_and_ignitia_rules_equal_plain_loops_over_masks(images):
    generator = np.random.default_rng(images)
    # Small images of many classes: the classes present differ from image to image; class 11 is nowhere.
    truth = generator.choice(11, (images, 4, 4), p=generator.dirichlet(np.full(11, 0.4))).astype(np.uint8)
    prediction = np.where(generator.random(truth.shape) < 0.6, truth, generator.integers(0, 11, truth.shape))
    prediction = prediction.astype(np.uint8)
    matrices = np.stack([confusion_matrix(t, p, 12) for t, p in zip(truth, prediction, strict=True)])
    found = score_by_convention(matrices, "abcdefghijkl")
    single, paired = (plain_scores(truth, prediction, 12, batch) for batch in (1, 2))
    assert found["per_image_union"] == pytest.approx(single["headline"])
    assert found["desertmind_per_class"] == pytest.approx(single["per_class"])
    assert found["batch2_union"] == pytest.approx(paired["headline"])
    assert found["ignitia_per_class"] == pytest.approx(paired["per_class"])
    assert found["ignitia_dice"] == pytest.approx(paired["dice"])


def test_the_odd_last_image_is_a_batch_by_itself_and_weighs_as_much_as_a_pair():
    perfect, wrong = [[4, 0, 0], [0, 4, 0]], [[0, 4, 0], [4, 0, 0]]
    rule = CONVENTIONS["batch2_union"]
    assert rule(np.array([perfect, perfect, wrong]), "ab") == pytest.approx((1 + 0) / 2)
    assert rule(np.array([perfect, wrong, wrong]), "ab") == pytest.approx((4 / 12 + 0) / 2)
    assert rule(np.array([wrong]), "ab") == 0


def test_one_stray_pixel_of_an_absent_class_drops_union_present_and_leaves_miou():
    clean = np.array([[[5000, 0, 0, 0], [0, 5000, 0, 0], [0, 0, 0, 0]]])
    stray = np.array([[[4999, 0, 1, 0], [0, 5000, 0, 0], [0, 0, 0, 0]]])
    before, after = (score_by_convention(matrices, "abc") for matrices in (clean, stray))
    assert before["union_present"] == before["miou"] == 1
    assert after["union_present"] == pytest.approx(2 / 3, abs=1e-4)
    assert after["per_image_union"] == pytest.approx(2 / 3, abs=1e-4)
    assert after["miou"] == pytest.approx(1, abs=1e-4)


def test_codecrunch7_leaves_out_the_three_classes_in_the_truth_and_counts_their_prediction_as_none():
    names = ("Trees", "Ground Clutter", "Flowers", "Logs", "Sky")
    matrices = np.array(
        [
            [
                [6, 1, 1, 0, 1, 1],
                [9, 9, 9, 9, 9, 9],
                [9, 9, 9, 9, 9, 9],
                [9, 9, 9, 9, 9, 9],
                [2, 0, 0, 3, 5, 0],
            ]
        ]
    )
    # Trees: 6 of 10 true, 8 predicted. Sky: 5 of 10 true, 6 predicted.
    assert CONVENTIONS["codecrunch7"](matrices, names) == pytest.approx((6 / 12 + 5 / 11) / 2)


def test_codecrunch7_with_only_the_three_classes_has_nothing_to_score():
    matrices = np.full((1, 3, 4), 5)
    assert math.isnan(CONVENTIONS["codecrunch7"](matrices, ("Ground Clutter", "Flowers", "Logs")))


def test_codecrunch7_does_not_apply_to_classes_without_flowers():
    names = ("Trees", "Ground Clutter", "Logs", "Sky")
    assert math.isnan(CONVENTIONS["codecrunch7"](THREE, names))


def test_an_all_ignored_image_changes_no_mean_over_images():
    padded = np.concatenate([THREE, np.zeros_like(THREE[:1])])
    before, after = score_by_convention(THREE, "abcd"), score_by_convention(padded, "abcd")
    assert after == pytest.approx(before, nan_ok=True)


def test_an_image_without_any_hit_counts_as_zero_among_the_positive_ious():
    matrices = np.array([[[4, 0, 0], [0, 4, 0]], [[0, 4, 0], [4, 0, 0]]])
    assert CONVENTIONS["per_image_positive"](matrices, "ab") == pytest.approx(1 / 2)


def test_names_that_are_not_one_per_class_are_refused():
    with pytest.raises(DataError, match="3 class names for matrices of 4 classes"):
        CONVENTIONS["miou"](THREE, "abc")
