"""The boundary map against SciPy, the published facts about it, and what ignored pixels do to it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from harness.config import IGNORE
from harness.losses.boundary import boundary_map, edges

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
SHAPES = [(24, 40), (17, 31), (5, 3), (1, 9), (1, 1)]
each_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)


def by_scipy(labels: np.ndarray, sigma: float) -> np.ndarray:
    """The map of one image (H W), class by class as the script builds it; ignored pixels join each mask."""
    ignored = labels == IGNORE
    total = np.zeros(labels.shape)
    for c in np.setdiff1d(labels, IGNORE):
        mask = labels == c
        edge = mask & ~ndimage.binary_erosion(mask | ignored, iterations=2)
        total += ndimage.gaussian_filter(edge.astype(float), sigma)
    total[ignored] = 0
    return total / (total.max() + 1e-6)


def patches(shape: tuple[int, int], seed: int, ignored: float = 0.0) -> np.ndarray:
    """Labels 0 to 3 in patches of about 4 pixels, a share of the pixels ignored, in patches too."""
    height, width = shape
    shares = [(1 - ignored) / 4] * 4 + [ignored]
    grid = height // 4 + 1, width // 4 + 1
    blocks = np.random.default_rng(seed).choice([0, 1, 2, 3, IGNORE], grid, p=shares)
    return np.kron(blocks, np.ones((4, 4), dtype=np.int64))[:height, :width]


def mapped(images: list[np.ndarray], sigma: float, dtype=torch.float32, device: str = "cpu") -> np.ndarray:
    return boundary_map(torch.tensor(np.stack(images), device=device), sigma, dtype).cpu().numpy()


def horizon() -> np.ndarray:
    labels = np.zeros((364, 644), dtype=np.int64)
    labels[182:] = 1
    return labels


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("sigma", [0.1, 0.7, 2.0, 9.0])
@each_shape
def test_the_map_equals_scipys_erosion_and_blur_of_every_class(shape, sigma, device):
    images = [patches(shape, seed) for seed in range(3)]
    expected = np.stack([by_scipy(image, sigma) for image in images])
    np.testing.assert_allclose(mapped(images, sigma, device=device), expected, rtol=0, atol=1e-5)
    double = mapped(images, sigma, torch.float64, device)
    np.testing.assert_allclose(double, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("sigma", [0.7, 2.0])
@each_shape
def test_the_map_with_ignored_pixels_equals_scipy_with_masks_that_take_them_in(shape, sigma):
    images = [patches(shape, seed, ignored=0.3) for seed in range(4)]
    expected = np.stack([by_scipy(image, sigma) for image in images])
    np.testing.assert_allclose(mapped(images, sigma, torch.float64), expected, rtol=0, atol=1e-12)


def test_edges_worked_by_hand():
    """A class is edge two steps deep, along rows and columns, and so is the frame."""
    labels = torch.zeros(1, 9, 9, dtype=torch.int64)
    labels[0, 4, 4] = 1
    inner = [[0, 0, 1, 0, 0], [0, 1, 1, 1, 0], [1, 1, 1, 1, 1], [0, 1, 1, 1, 0], [0, 0, 1, 0, 0]]
    expected = torch.ones(9, 9, dtype=torch.bool)
    expected[2:7, 2:7] = torch.tensor(inner, dtype=torch.bool)
    assert torch.equal(edges(labels)[0], expected)


def test_an_ignored_patch_makes_no_edge_in_the_class_around_it():
    labels = torch.zeros(1, 15, 15, dtype=torch.int64)
    plain = edges(labels)
    labels[0, 5:10, 5:10] = IGNORE
    assert torch.equal(edges(labels), plain)
    labels[0, 5:10, 5:10] = 1
    assert edges(labels).sum() > plain.sum()


def test_a_class_that_an_ignored_pixel_parts_from_another_still_has_its_edge():
    labels = torch.tensor([[0] * 4 + [IGNORE] + [1] * 4]).expand(9, 9)[None]
    assert edges(labels)[0, 4].tolist() == [True, True, False, True, False, True, False, True, True]


def test_ignored_border_fill_is_no_frame():
    labels = torch.zeros(1, 12, 12, dtype=torch.int64)
    labels[:, :, :2] = IGNORE
    found = edges(labels)[0]
    assert not found[6, :10].any()
    assert found[6, 10:].all()


def test_sixty_one_per_cent_of_the_map_of_a_horizon_lie_in_the_outer_6_pixels_and_its_mean_is_3_per_cent():
    """Trap T18, at the frame size of phase 6."""
    found = mapped([horizon()], 2.0, torch.float64)[0]
    assert 1 - found[6:-6, 6:-6].sum() / found.sum() == pytest.approx(0.61, abs=0.005)
    assert found.mean() == pytest.approx(0.03, abs=0.005)
    np.testing.assert_allclose(found, by_scipy(horizon(), 2.0), rtol=0, atol=1e-12)


def test_each_image_is_scaled_by_its_own_largest_labelled_value():
    images = [patches((24, 40), 0), patches((24, 40), 1, ignored=0.3), np.zeros((24, 40), dtype=np.int64)]
    together = mapped(images, 2.0)
    assert together.max((1, 2)) == pytest.approx(1, abs=1e-4)
    assert together.min() >= 0
    alone = [mapped([image], 2.0)[0] for image in images]
    np.testing.assert_array_equal(together, np.stack(alone))


def test_an_image_without_a_label_has_a_map_of_0_beside_one_with_labels():
    images = [np.full((7, 5), IGNORE), patches((7, 5), 0)]
    found = mapped(images, 2.0)
    assert not found[0].any()
    assert found[1].any()


def test_autocast_does_not_round_the_map():
    labels = torch.tensor(patches((17, 31), 0))[None]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = boundary_map(labels, 2.0, torch.float32)
    torch.testing.assert_close(found, boundary_map(labels, 2.0, torch.float32), rtol=0, atol=0)


def test_no_gradient_flows_through_the_map():
    assert not boundary_map(torch.zeros(1, 5, 5, dtype=torch.int64), 2.0, torch.float32).requires_grad
