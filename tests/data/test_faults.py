from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from harness.config import IGNORE
from harness.data.faults import blend_classes

EDGE = np.array([[1, 1, 1, 9, 9, 9, 9, 9]], np.uint8).repeat(2, axis=0)


def blocks(height: int, width: int) -> np.ndarray:
    """Class blocks of 8 x 8 pixels, cut to the size."""
    classes = np.random.default_rng(height).integers(0, 10, (-(-height // 8), -(-width // 8)))
    return np.kron(classes, np.ones((8, 8), int))[:height, :width].astype(np.uint8)


def test_between_class_1_and_class_9_appears_class_5():
    # at half the size the weights are 1/8, 3/8, 3/8, 1/8: (1 + 3 + 27 + 9) / 8 = 5 on the edge
    assert blend_classes(EDGE, (1, 4)).tolist() == [[1, 5, 9, 9]]


def test_a_pixel_that_draws_on_an_ignored_one_is_ignored_and_no_other():
    classes = EDGE.copy()
    classes[:, 7] = IGNORE
    assert blend_classes(classes, (1, 4)).tolist() == [[1, 5, 9, IGNORE]]


@pytest.mark.parametrize(("height", "width", "size"), [(54, 96, (28, 48)), (37, 53, (28, 42)), (40, 64, (56, 70))])
def test_masks_are_blended_as_the_script_did_with_torchvision(height, width, size):
    classes = blocks(height, width)
    script = transforms.Compose([transforms.Resize(size), transforms.ToTensor()])
    expected = (script(Image.fromarray(classes)) * 255).long().squeeze(0)
    blended = blend_classes(classes, size)
    assert blended.dtype == np.uint8
    assert np.array_equal(blended, expected.numpy())


def test_masks_are_blended_across_then_down_and_rounded_each_time():
    classes = blocks(54, 96)
    values = torch.from_numpy(classes).float()[None, None]
    for size in ((54, 48), (28, 48)):
        smooth = torch.nn.functional.interpolate(values, size=size, mode="bilinear", antialias=True)
        values = (smooth + 0.5).floor()
    assert np.abs(blend_classes(classes, (28, 48)) - smooth.numpy()[0, 0]).max() < 0.501


def test_masks_that_have_the_size_are_not_touched():
    classes = blocks(16, 24)
    assert blend_classes(classes, (16, 24)) is classes
