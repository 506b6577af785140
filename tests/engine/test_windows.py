from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from harness.config import Experiment
from harness.data import build_taxonomy
from harness.engine.inference import View
from harness.engine.predict import predict_classes
from harness.engine.trained import Trained
from harness.engine.windows import starts, window_logits
from harness.errors import DataError
from harness.models import build_model

LOOKS = (View(32, 48, False),)


class _Pointwise(torch.nn.Module):
    """Logits of ten classes from each pixel alone: what a window cuts off changes nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = torch.nn.Conv2d(3, 10, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.mix(images)


class _Middle(torch.nn.Module):
    """The same logits wherever the window lies: the brightest class is given by the position inside it."""

    def __init__(self) -> None:
        super().__init__()
        self.anchor = torch.nn.Parameter(torch.zeros(1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        height, width = images.shape[-2:]
        ramp = torch.arange(width, dtype=torch.float32).expand(len(images), 10, height, width).clone()
        return ramp + self.anchor


@pytest.fixture
def trained(experiment: Callable[..., Experiment]) -> Callable[..., Trained]:
    def build(model: torch.nn.Module, **more: object) -> Trained:
        what = experiment(more)
        return Trained(what, build_taxonomy(what.taxonomy), model.eval(), epoch=1, score=0.5)

    return build


@pytest.mark.parametrize(
    ("side", "window", "overlap", "expected"),
    [
        (100, 100, 0.25, [0]),
        (101, 100, 0.0, [0, 1]),
        (300, 100, 0.0, [0, 100, 200]),
        (300, 100, 0.5, [0, 50, 100, 150, 200]),
        (250, 100, 0.25, [0, 75, 150]),
        (540, 266, 0.25, [0, 137, 274]),
        (110, 100, 0.9, [0, 10]),
    ],
)
def test_windows_are_spread_evenly_and_reach_both_ends(
    side: int, window: int, overlap: float, expected: list[int]
) -> None:
    assert starts(side, window, overlap) == expected


@pytest.mark.parametrize(("side", "window", "overlap"), [(540, 266, 0.25), (1080, 364, 0.1), (961, 476, 0.5)])
def test_neighbouring_windows_have_at_least_the_overlap_in_common(side: int, window: int, overlap: float) -> None:
    steps = np.diff(starts(side, window, overlap))
    # half a pixel is lost to rounding
    assert steps.max() <= window * (1 - overlap) + 1 and steps.min() >= steps.max() - 1


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.6])
def test_a_model_of_single_pixels_gives_with_windows_what_it_gives_without(
    trained: Callable[..., Trained], overlap: float
) -> None:
    torch.manual_seed(0)
    model = trained(_Pointwise(), **{"data.normalise": "unit", "evaluation.batch_size": 3})
    image = np.random.default_rng(0).integers(0, 256, (75, 101, 3), np.uint8)
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None]

    logits = window_logits(model, pixels, LOOKS, overlap)

    with torch.inference_mode():
        expected = model.model(pixels / 255)
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=0)
    np.testing.assert_array_equal(predict_classes(model, image, LOOKS, overlap), expected.argmax(1)[0])


def test_where_windows_overlap_each_counts_by_its_distance_from_its_border(trained: Callable[..., Trained]) -> None:
    # 32 x 72: two windows of 48 columns, from 0 and 24, which share the columns 24 to 47
    logits = window_logits(trained(_Middle()), torch.zeros(1, 3, 32, 72, dtype=torch.uint8), LOOKS, 0.5)

    columns = logits[0, 0, 5].numpy()
    np.testing.assert_allclose(columns[:24], np.arange(24), atol=1e-4)
    np.testing.assert_allclose(columns[48:], np.arange(24, 48), atol=1e-4)
    # column 30: the first window sees its column 30, 17.5 from its border, the second its column 6, 6.5 from it
    assert columns[30] == pytest.approx((30 * 17.5 + 6 * 6.5) / 24, abs=1e-4)


def test_an_image_smaller_than_a_window_is_refused_with_both_sizes(trained: Callable[..., Trained]) -> None:
    with pytest.raises(DataError, match=r"53x31 pixels is smaller than a window of 48x32 .*leave out --windows"):
        predict_classes(trained(_Pointwise()), np.zeros((31, 53, 3), np.uint8), LOOKS, 0.25)


def test_windows_of_a_real_network_agree_with_its_logits_far_from_the_seams(
    trained: Callable[..., Trained], experiment: Callable[..., Experiment]
) -> None:
    torch.manual_seed(0)
    model = trained(build_model(experiment().model, 10))
    image = np.random.default_rng(0).integers(0, 256, (32, 48, 3), np.uint8)
    # one window is the whole image
    np.testing.assert_array_equal(predict_classes(model, image, LOOKS, 0.25), predict_classes(model, image, LOOKS))
