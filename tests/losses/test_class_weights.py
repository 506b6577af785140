"""Class weights against the published tables, and the counts and names that are refused."""

from __future__ import annotations

import numpy as np
import pytest

from harness.config.loss import ExplicitWeights, InverseFrequency, LogFrequency, NoClassWeights
from harness.errors import ConfigError, DataError
from harness.losses import class_weights

# Ignitia, phase 2 report: class -> (pixels of the training loader, weight). "Background" includes Flowers.
IGNITIA_PHASE_2 = {
    "Sky": (132501218, 0.0104),
    "Landscape": (85243863, 0.0161),
    "Dry Grass": (66295865, 0.0208),
    "Lush Bushes": (21002552, 0.0655),
    "Background": (20439451, 0.0673),
    "Ground Clutter": (15382574, 0.0895),
    "Trees": (12536643, 0.1098),
    "Rocks": (4199770, 0.3278),
    "Dry Bushes": (3864657, 0.3562),
    "Logs": (275319, 5.0),
}
# Ignitia, phase 6 log.
IGNITIA_PHASE_6 = {
    "Background": (51888545, 0.0481),
    "Trees": (22863905, 0.1092),
    "Lush Bushes": (38324483, 0.0651),
    "Dry Grass": (120179763, 0.0208),
    "Dry Bushes": (7011464, 0.3560),
    "Ground Clutter": (27842197, 0.0897),
    "Logs": (499218, 5.0),
    "Rocks": (7595852, 0.3286),
    "Landscape": (154176587, 0.0162),
    "Sky": (239344498, 0.0104),
}
# CodeCrunch report, Table 1: class -> share of the training pixels in per cent; the weights that DesertMind's
# formula makes of them agree with the three figures it logged: 2.47 (2.49 here), 1.63 and 0.15-0.27.
DESERTMIND = {
    "Trees": (3.5, 0.958),
    "Lush Bushes": (5.9, 0.675),
    "Dry Grass": (18.9, 0.270),
    "Dry Bushes": (1.1, 1.681),
    "Ground Clutter": (4.4, 0.827),
    "Flowers": (2.8, 1.094),
    "Logs": (0.08, 2.494),
    "Rocks": (1.2, 1.629),
    "Landscape": (24.4, 0.219),
    "Sky": (37.6, 0.154),
}
DESERT = ["Trees", "Rocks", "Sky"]


def columns(table: dict[str, tuple[float, float]]) -> tuple[np.ndarray, list[str], list[float]]:
    return np.array([row[0] for row in table.values()]), list(table), [row[1] for row in table.values()]


def ignitia_formula(counts: np.ndarray) -> np.ndarray:
    """As the scripts write it."""
    weights = counts.sum() / (10 * counts + 1e-6)
    return 5 * weights / weights.max()


def test_no_class_weights_are_ones_whatever_the_counts():
    found = class_weights(NoClassWeights(), np.zeros(3, dtype=np.int64), DESERT)
    assert found.dtype == np.float64
    assert np.array_equal(found, [1, 1, 1])


@pytest.mark.parametrize("table", [IGNITIA_PHASE_2, IGNITIA_PHASE_6], ids=["phase 2", "phase 6"])
def test_inverse_frequency_gives_ignitias_published_weights_to_every_printed_digit(table):
    counts, names, published = columns(table)
    found = class_weights(InverseFrequency(), counts, names)
    assert found.dtype == np.float64
    assert found.round(4).tolist() == published
    np.testing.assert_allclose(found, ignitia_formula(counts), rtol=1e-12)


def test_inverse_frequency_worked_by_hand():
    found = class_weights(InverseFrequency(maximum=2.0), np.array([10, 40, 5]), DESERT)
    np.testing.assert_allclose(found, [1.0, 0.25, 2.0], rtol=1e-15)


def test_a_class_that_never_occurs_weighs_0_and_leaves_the_other_inverse_frequencies_alone():
    """Trap T21: the published formula drives every other weight to about 0."""
    counts = np.array([10, 0, 5])
    assert ignitia_formula(counts)[[0, 2]].max() < 1e-5
    found = class_weights(InverseFrequency(), counts, DESERT)
    np.testing.assert_allclose(found, [2.5, 0.0, 5.0], rtol=1e-15)


def test_log_frequency_gives_desertminds_weights_from_the_published_shares():
    shares, names, published = columns(DESERTMIND)
    found = class_weights(LogFrequency(), shares, names)
    np.testing.assert_allclose(found, published, atol=5.1e-4)
    assert found.mean() == pytest.approx(1, abs=1e-12)


def test_log_frequency_reads_shares_so_that_the_number_of_frames_does_not_matter():
    counts = np.array([10, 40, 5])
    once, often = (class_weights(LogFrequency(offset=1.1), n, DESERT) for n in (counts, 1000 * counts))
    np.testing.assert_allclose(often, once, rtol=1e-12)


def test_log_frequency_gives_a_class_that_never_occurs_the_largest_weight_and_a_finite_one():
    found = class_weights(LogFrequency(), np.array([30, 0, 70]), DESERT)
    unscaled = [1 / np.log(1.32), 1 / np.log(1.02), 1 / np.log(1.72)]
    np.testing.assert_allclose(found, np.array(unscaled) * 3 / sum(unscaled), rtol=1e-12)


def test_explicit_weights_follow_the_order_of_the_classes_not_of_the_file():
    config = ExplicitWeights(values={"Sky": 0.4, "Trees": 1.5, "Rocks": 5.0})
    assert class_weights(config, np.zeros(3), DESERT).tolist() == [1.5, 5.0, 0.4]


def test_an_explicit_weight_of_an_unknown_class_is_refused_with_the_likely_name():
    config = ExplicitWeights(values={"Sky": 0.4, "Trees": 1.5, "Rock": 5.0})
    with pytest.raises(ConfigError, match="names 'Rock', which is not a class; did you mean 'Rocks'"):
        class_weights(config, np.ones(3), DESERT)


def test_explicit_weights_that_leave_classes_out_are_refused_by_name():
    with pytest.raises(ConfigError, match="no weight for Trees, Rocks; name every class"):
        class_weights(ExplicitWeights(values={"Sky": 0.4}), np.ones(3), DESERT)


def test_explicit_weights_that_are_all_0_are_refused():
    config = ExplicitWeights(values=dict.fromkeys(DESERT, 0.0))
    with pytest.raises(ConfigError, match="are all 0; give at least one class a weight above 0"):
        class_weights(config, np.ones(3), DESERT)


@pytest.mark.parametrize("config", [InverseFrequency(), LogFrequency()], ids=lambda config: config.kind)
def test_frequencies_of_no_labelled_pixel_are_refused(config):
    with pytest.raises(DataError, match=f"no pixel of any of the 3 classes.*kind {config.kind}"):
        class_weights(config, np.zeros(3, dtype=np.int64), DESERT)


def test_counts_of_other_classes_are_refused_with_both_numbers():
    with pytest.raises(DataError, match=r"shape \(4,\) for 3 classes; .* shape \(3,\)"):
        class_weights(InverseFrequency(), np.ones(4), DESERT)


@pytest.mark.parametrize("count", [-1.0, np.nan, np.inf])
def test_a_count_that_is_no_number_of_pixels_is_refused_with_its_class(count):
    with pytest.raises(DataError, match=f"count {count:g} of class Rocks; counts are pixels, 0 or more"):
        class_weights(LogFrequency(), np.array([1.0, count, 1.0]), DESERT)
