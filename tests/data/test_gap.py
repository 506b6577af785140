from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from harness.config.data import NamedTaxonomy
from harness.data.census import Census, census
from harness.data.gap import gap
from harness.data.taxonomy import build_taxonomy
from harness.errors import DataError

#: CodeCrunch's Table 1: share of the training and of the test pixels, %, and the printed shift
TABLE_1 = {
    "Trees": (3.5, 0.3, -3.2), "Lush Bushes": (5.9, 0.002, -5.9), "Dry Grass": (18.9, 17.4, -1.5),
    "Dry Bushes": (1.1, 3.0, 1.9), "Ground Clutter": (4.4, 0, "Absent"), "Flowers": (2.8, 0, "Absent"),
    "Logs": (0.08, 0, "Absent"), "Rocks": (1.2, 18.1, 16.9), "Landscape": (24.4, 43.2, 18.8),
    "Sky": (37.6, 18.0, -19.6),
}  # fmt: skip


def counted(pixels, names, ignored=0, colour=(0, 0, 0), frames=3) -> Census:
    return Census(
        names=tuple(names),
        frames=frames,
        labelled=frames,
        pixels=np.array(pixels, np.int64),
        ignored=ignored,
        frames_with_class=np.zeros(len(pixels), np.int64),
        colour_mean=np.array(colour, np.float64),
        colour_deviation=np.zeros(3),
        sizes={(540, 960): frames},
    )


def test_the_first_table_of_codecrunch_comes_out():
    train, test = ([round(1000 * row[i]) for row in TABLE_1.values()] for i in (0, 1))
    found = gap(
        counted(train, TABLE_1, colour=(149, 130, 107), frames=2857),
        counted(test, TABLE_1, colour=(123, 105, 94), frames=1002),
    )
    for row, (name, printed) in zip(found["classes"], TABLE_1.items(), strict=True):
        assert row["class"] == name
        # the printed shares of the training set sum to 99.88
        assert row["share_a"] == pytest.approx(printed[0], abs=0.06)
        assert row["share_b"] == pytest.approx(printed[1], abs=0.06)
        if printed[2] == "Absent":
            assert row["absent"] == "b"
        else:
            assert row["shift"] == pytest.approx(printed[2], abs=0.1) and row["absent"] is None
    assert [(c["channel"], c["mean_a"], c["mean_b"], c["shift"]) for c in found["colours"]] == [
        ("R", 149, 123, -26), ("G", 130, 105, -25), ("B", 107, 94, -13),
    ]  # fmt: skip
    # by hand from the printed shares: half of 3.2 + 5.9 + 1.5 + 1.9 + 4.4 + 2.8 + 0.08 + 16.9 + 18.8 + 19.6
    assert found["total_variation"] == pytest.approx(0.3754, abs=0.001)
    assert found["frames"] == [2857, 1002]


def test_shares_leave_ignored_pixels_out_and_these_have_their_own():
    found = gap(counted([3, 1, 0], "abc", ignored=4), counted([0, 5, 0], "abc", ignored=15))
    assert found["classes"] == [
        {"class": "a", "share_a": 75.0, "share_b": 0.0, "shift": -75.0, "absent": "b"},
        {"class": "b", "share_a": 25.0, "share_b": 100.0, "shift": 75.0, "absent": None},
        {"class": "c", "share_a": 0.0, "share_b": 0.0, "shift": 0.0, "absent": "both"},
    ]
    assert found["ignored"] == {"share_a": 50.0, "share_b": 75.0, "shift": 25.0}
    assert found["total_variation"] == 0.75
    turned = gap(counted([0, 5, 0], "abc"), counted([3, 1, 0], "abc"))
    assert [row["absent"] for row in turned["classes"]] == ["a", None, "both"]


def test_a_split_lies_at_0_of_itself_and_at_1_of_one_without_a_class_in_common():
    a, b = counted([3, 1, 0], "abc"), counted([0, 0, 7], "abc")
    assert gap(a, a)["total_variation"] == 0 and gap(a, b)["total_variation"] == 1


def test_the_gap_of_two_splits_of_files_is_made_of_plain_values(frames_root):
    taxonomy = build_taxonomy(NamedTaxonomy(name="falcon7"))
    splits = census(frames_root, "train", taxonomy), census(frames_root, "val", taxonomy)
    found = gap(*splits)
    assert json.loads(json.dumps(found)) == found
    first, second = (split.pixels / split.pixels.sum() for split in splits)
    assert found["total_variation"] == pytest.approx(np.maximum(first - second, 0).sum())
    assert [c["shift"] for c in found["colours"]] == pytest.approx(splits[1].colour_mean - splits[0].colour_mean)


def test_counts_of_two_taxonomies_are_not_compared():
    with pytest.raises(DataError, match="classes a, b against a, c; count both splits with the same taxonomy"):
        gap(counted([1, 1], "ab"), counted([1, 1], "ac"))


def test_a_split_without_masks_has_no_shares():
    images = replace(counted([0, 0], "ab", frames=4), labelled=0)
    with pytest.raises(DataError, match="the second of the two splits has 0 masks for 4 frames.*with masks"):
        gap(counted([1, 1], "ab"), images)
