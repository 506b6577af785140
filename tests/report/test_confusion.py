"""The confusion matrix in a terminal, against cases worked by hand and torchmetrics."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from rich.console import Console
from torchmetrics.functional.classification import multiclass_confusion_matrix

from harness.metrics import confusion_matrix
from harness.report.confusion import confusion_table, counted, mistakes, row_shares, short_names

FALCON = (
    "Trees", "Lush Bushes", "Dry Grass", "Dry Bushes", "Ground Clutter", "Flowers", "Logs", "Rocks", "Landscape", "Sky",
)  # fmt: skip
# rows truth, columns prediction, last column none; the truth has no Log
HAND = np.array([[6, 2, 0, 0], [1, 2999, 0, 0], [0, 0, 0, 0]])


def shown(matrix: np.ndarray, names: tuple[str, ...], width: int = 100) -> list[str]:
    screen = Console(file=io.StringIO(), width=width, color_system=None)
    screen.print(confusion_table(matrix, names, width))
    return [line.rstrip() for line in screen.file.getvalue().splitlines()]


def cells(lines: list[str], name: str) -> list[str]:
    (line,) = [line for line in lines if line.startswith(f"{name} ")]
    return line.removeprefix(name).split()


def test_a_row_is_in_per_cent_of_its_own_pixels_and_an_absent_class_says_so() -> None:
    lines = shown(HAND, ("Sky", "Rocks", "Logs"))
    assert cells(lines, "Sky") == ["75.0", "25.0", "·", "8"]
    assert cells(lines, "Rocks") == ["<0.1", ">99.9", "·", "3k"]
    assert cells(lines, "Logs") == ["–", "–", "–", "absent"]
    assert lines[-1] == "none of the frames holds Logs"


def test_pixels_that_are_predicted_as_no_class_have_their_column_where_there_are_any() -> None:
    matrix = HAND.copy()
    matrix[0, 3] = 8
    matrix[1, 2] = 1000
    lines = shown(matrix, ("Sky", "Rocks", "Logs"))
    assert lines[1].split()[-5:] == ["Sky", "Rock", "Logs", "none", "pixels"]
    assert cells(lines, "Sky") == ["37.5", "12.5", "·", "50.0", "16"]
    assert lines[-1] == "none of the frames holds Logs; predicted all the same: Logs"


def test_ten_classes_fit_into_a_hundred_columns_and_no_name_is_cut() -> None:
    matrix = np.random.default_rng(0).integers(10**6, 10**8, (10, 11))
    lines = shown(matrix, FALCON)
    assert max(map(len, lines)) <= 100 and not any("…" in line for line in lines)
    for name, row in zip(FALCON, matrix, strict=True):
        expected = [f"{100 * value / row.sum():.1f}" for value in row]
        assert cells(lines, name)[:-1] == expected


def test_where_the_screen_is_too_narrow_the_largest_mistakes_are_listed() -> None:
    matrix = np.zeros((10, 11), np.int64)
    matrix[3, 3], matrix[3, 2], matrix[9, 9], matrix[9, 10] = 25, 75, 900, 100
    lines = shown(matrix, FALCON, width=60)
    assert max(map(len, lines)) <= 60
    rows = [line.split() for line in lines if line.startswith(("Dry", "Sky"))]
    assert rows == [["Sky", "none", "10.0", "100"], ["Dry", "Bushes", "Dry", "Grass", "75.0", "75"]]


def test_shares_are_those_of_torchmetrics() -> None:
    generator = torch.Generator().manual_seed(0)
    truth, predicted = (torch.randint(0, 5, (40, 30), generator=generator) for _ in range(2))
    ours = confusion_matrix(truth.numpy().astype(np.uint8), predicted.numpy().astype(np.uint8), 5)
    theirs = multiclass_confusion_matrix(predicted, truth, num_classes=5, normalize="true")
    np.testing.assert_allclose(row_shares(ours)[:, :5], 100 * theirs.numpy(), rtol=1e-5)


def test_mistakes_come_with_the_most_pixels_first() -> None:
    assert mistakes(HAND, ("a", "b", "c")) == [("a", "b", 2), ("b", "a", 1)]


@pytest.mark.parametrize(
    ("names", "heads"),
    [
        (FALCON, ["Tree", "LBus", "DGra", "DBus", "GClu", "Flow", "Logs", "Rock", "Land", "Sky"]),
        (("road_a", "road_b"), ["ra", "rb"]),
        (("Roads", "Roadside", "Sky"), ["0", "1", "2"]),
    ],
)
def test_column_heads_are_short_and_never_the_same(names: tuple[str, ...], heads: list[str]) -> None:
    assert short_names(names) == heads


@pytest.mark.parametrize(
    ("pixels", "text"),
    [
        (0, "0"),
        (998, "998"),
        (1000, "1k"),
        (12_345, "12.3k"),
        (999_400, "999k"),
        (999_600, "1M"),
        (4_560_000, "4.56M"),
        (2_345_000_000, "2.35G"),
    ],
)
def test_counts_of_pixels_are_short(pixels: int, text: str) -> None:
    assert counted(pixels) == text
