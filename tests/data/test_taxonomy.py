from __future__ import annotations

import itertools

import numpy as np
import pytest

from harness.config import IGNORE
from harness.config.data import CustomClass, CustomTaxonomy, NamedTaxonomy
from harness.data.frames import list_frames, read_mask
from harness.data.taxonomy import UNMAPPED, build_taxonomy
from harness.errors import ConfigError, DataError

FALCON_IDS = (100, 200, 300, 500, 550, 600, 700, 800, 7100, 10000)
FALCON10 = build_taxonomy(NamedTaxonomy(name="falcon10"))
FALCON7 = build_taxonomy(NamedTaxonomy(name="falcon7"))
IGNITIA10 = build_taxonomy(NamedTaxonomy(name="ignitia10"))


def raw(*ids: int) -> np.ndarray:
    return np.array([ids], np.uint16)


def custom(**options) -> CustomTaxonomy:
    classes = (
        CustomClass(name="Ground", ids=(1, 2), colour=(10, 20, 30)),
        CustomClass(name="Sky", ids=(7,), colour=(40, 50, 60)),
        CustomClass(name="Tree", ids=(9,), colour=(70, 80, 90)),
    )
    return CustomTaxonomy(**({"classes": classes} | options))


def test_falcon10_numbers_the_ten_ids_in_order():
    assert FALCON10.to_classes(raw(*FALCON_IDS), "x").tolist() == [list(range(10))]
    assert FALCON10.names[0] == "Trees" and FALCON10.names[9] == "Sky"


def test_falcon7_ignores_clutter_flowers_and_logs():
    found = FALCON7.to_classes(raw(*FALCON_IDS), "x")
    assert found.tolist() == [[0, 1, 2, 3, IGNORE, IGNORE, IGNORE, 4, 5, 6]]
    assert FALCON7.names == ("Trees", "Lush Bushes", "Dry Grass", "Dry Bushes", "Rocks", "Landscape", "Sky")


def test_ignitia10_loses_flowers_in_class_0_as_that_team_did():
    assert IGNITIA10.to_classes(raw(0, *FALCON_IDS), "x").tolist() == [[0, 1, 2, 3, 4, 5, 0, 6, 7, 8, 9]]
    assert "Flowers" not in IGNITIA10.names


@pytest.mark.parametrize("taxonomy", [FALCON10, FALCON7])
def test_raw_0_is_an_error_except_for_ignitia10(taxonomy):
    with pytest.raises(DataError, match="0 \\(1 pixel\\)"):
        taxonomy.to_classes(raw(100, 0), "x")


def test_a_mask_with_unlisted_ids_is_refused_with_each_id_its_count_and_the_file():
    with pytest.raises(DataError, match=r"a/b\.png.* 16 \(3 pixels\), 9999 \(1 pixel\).*taxonomy\.ignore"):
        FALCON10.to_classes(raw(100, 16, 16, 16, 9999, 10000), "a/b.png")


def test_ids_of_another_type_are_refused_before_they_are_looked_up():
    with pytest.raises(DataError, match="type uint8.*uint16"):
        FALCON10.to_classes(raw(100).astype(np.uint8), "x")


@pytest.mark.parametrize("taxonomy", [FALCON10, FALCON7, IGNITIA10])
def test_classes_survive_the_way_to_raw_ids_and_back(taxonomy):
    classes = np.arange(len(taxonomy.names), dtype=np.uint8)[None]
    written = taxonomy.to_raw(classes)
    assert written.dtype == np.uint16
    assert np.array_equal(taxonomy.to_classes(written, "x"), classes)


@pytest.mark.parametrize("values", [[0, IGNORE], [0, 10], [-1, 3]])
def test_a_value_that_is_no_class_has_no_raw_id(values):
    with pytest.raises(DataError, match="classes are 0 to 9"):
        FALCON10.to_raw(np.array([values], np.int64))


@pytest.mark.parametrize("taxonomy", [FALCON10, FALCON7, IGNITIA10])
def test_colours_can_be_told_apart_and_ignore_is_black(taxonomy):
    painted = taxonomy.to_colour(np.array([[*range(len(taxonomy.names)), IGNORE]], np.uint8))[0].astype(int)
    assert painted[-1].tolist() == [0, 0, 0]
    distance = [np.abs(a - b).sum() for a, b in itertools.combinations(painted, 2)]
    assert min(distance) >= 60


def test_a_merged_class_vanishes_and_the_indices_close_up():
    taxonomy = build_taxonomy(NamedTaxonomy(merge={"Flowers": "Dry Grass", "Logs": "ignore"}))
    assert len(taxonomy.names) == 8 and "Flowers" not in taxonomy.names
    assert taxonomy.to_classes(raw(*FALCON_IDS), "x").tolist() == [[0, 1, 2, 3, 4, 2, IGNORE, 5, 6, 7]]
    assert taxonomy.to_raw(np.array([[2, 7]])).tolist() == [[300, 10000]]


def test_a_custom_class_takes_several_ids_and_writes_the_first():
    taxonomy = build_taxonomy(custom(ignore=(5,)))
    assert taxonomy.to_classes(raw(1, 2, 7, 9, 5), "x").tolist() == [[0, 0, 1, 2, IGNORE]]
    assert taxonomy.to_raw(np.array([[0, 1]])).tolist() == [[1, 7]]
    assert taxonomy.to_colour(np.array([[1]], np.uint8)).tolist() == [[[40, 50, 60]]]


def test_unlisted_ids_are_ignored_only_on_request():
    assert build_taxonomy(custom()).table[3] == UNMAPPED
    assert build_taxonomy(custom(unlisted="ignore")).to_classes(raw(3, 65535), "x").tolist() == [[IGNORE, IGNORE]]


def test_only_a_taxonomy_whose_ids_all_fit_into_8_bits_takes_8_bit_masks():
    assert build_taxonomy(custom()).eight_bit
    assert not build_taxonomy(custom(ignore=(256,))).eight_bit
    assert not FALCON10.eight_bit


@pytest.mark.parametrize(
    ("merge", "words"),
    [
        ({"Flwers": "Dry Grass"}, "no class 'Flwers'; did you mean 'Flowers'"),
        ({"Flowers": "Dry Gras"}, "merge.Flowers: no class 'Dry Gras'; did you mean 'Dry Grass'"),
        ({"Logs": "Logs"}, "'Logs' into itself"),
        ({"Flowers": "Logs", "Logs": "Rocks"}, "merge 'Flowers' into 'Rocks' instead"),
    ],
)
def test_a_merge_that_makes_no_sense_is_refused(merge, words):
    with pytest.raises(ConfigError, match=words):
        build_taxonomy(NamedTaxonomy(merge=merge))


def test_a_merge_must_leave_two_classes():
    with pytest.raises(ConfigError, match="leaves 1 class"):
        build_taxonomy(custom(merge={"Ground": "Sky", "Tree": "ignore"}))


@pytest.mark.parametrize(
    ("ids", "ignore", "words"),
    [
        ((3, 4, 3), (), "raw id 3 .*'A' and for 'C'"),
        ((3, 4, 5), (4,), "raw id 4 .*'B' and for 'ignore'"),
    ],
)
def test_an_id_belongs_to_one_class(ids, ignore, words):
    named = zip("ABC", ids, strict=True)
    classes = tuple(CustomClass(name=n, ids=(i,), colour=(1, 2, 3)) for n, i in named)
    with pytest.raises(ConfigError, match=words):
        build_taxonomy(CustomTaxonomy(classes=classes, ignore=ignore))


def test_a_name_is_given_to_one_class_and_is_not_ignore():
    twins = tuple(CustomClass(name="A", ids=(i,), colour=(1, 2, 3)) for i in (1, 2))
    with pytest.raises(ConfigError, match="2 classes are called 'A'"):
        build_taxonomy(CustomTaxonomy(classes=twins))
    odd = (twins[0], CustomClass(name="ignore", ids=(5,), colour=(1, 2, 3)))
    with pytest.raises(ConfigError, match="'ignore' cannot be a class"):
        build_taxonomy(CustomTaxonomy(classes=odd))


def test_the_real_frames_hold_seven_classes(falcon_frames):
    found = set()
    for frame in list_frames(falcon_frames, "train"):
        found |= set(np.unique(FALCON10.to_classes(read_mask(frame.mask), str(frame.mask))).tolist())
    assert {FALCON10.names[c] for c in found} == set(FALCON7.names)
