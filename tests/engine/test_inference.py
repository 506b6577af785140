from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.transforms import functional as V

from harness.config import Experiment
from harness.engine.inference import View, class_logits, normalise, resize_logits, views

IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


def _images(height: int = 32, width: int = 48, count: int = 2) -> torch.Tensor:
    return torch.randint(
        0, 256, (count, 3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )


@pytest.fixture
def lopsided() -> nn.Module:
    """Four classes at stride 2; a mirrored image does not give mirrored logits."""
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.Tanh()).eval()


def test_imagenet_statistics_are_those_of_torchvision() -> None:
    images = _images()

    expected = V.normalize(images / 255, **IMAGENET)

    torch.testing.assert_close(normalise(images, "imagenet"), expected)
    assert torch.equal(images, _images())


def test_unit_divides_by_255_only() -> None:
    images = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 3, 1, 1)

    assert normalise(images, "unit").flatten().tolist() == pytest.approx([0.0, 0.2, 1.0])


@pytest.mark.parametrize("size", [(31, 47), (16, 24), (61, 40)])
def test_logits_are_resized_as_torch_interpolates(size: tuple[int, int]) -> None:
    logits = torch.randn(2, 4, 16, 24, dtype=torch.bfloat16)

    resized = resize_logits(logits, size)

    assert resized.dtype == torch.float32
    expected = F.interpolate(logits.float(), size=size, mode="bilinear", align_corners=False)
    torch.testing.assert_close(resized, expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("scale", "size"),
    [
        # 364 x 644 is 26 x 46 patches of 14 pixels
        (0.9, (322, 574)),
        (1.0, (364, 644)),
        (1.1, (406, 714)),
        (1.2, (434, 770)),
        (0.01, (14, 14)),
    ],
)
def test_a_view_is_rounded_to_whole_patches_of_a_vit(
    experiment: Callable[..., Experiment], scale: float, size: tuple[int, int]
) -> None:
    whole = experiment(
        {
            "data.input_size": [364, 644],
            "model.backbone": "vit_small_patch14_dinov2",
            "model.stride": None,
            "evaluation.tta": {"scales": [scale]},
        }
    )

    assert views(whole, whole.evaluation.tta) == (View(*size, False),)


def test_a_flip_doubles_the_views_and_a_cnn_takes_any_size(experiment: Callable[..., Experiment]) -> None:
    whole = experiment({"evaluation.tta": {"scales": [1.0, 0.79], "flip": True}})

    assert views(whole, whole.evaluation.tta) == (
        View(32, 48, False),
        View(32, 48, True),
        View(25, 38, False),
        View(25, 38, True),
    )


def test_without_views_the_image_is_seen_once_as_it_is(
    experiment: Callable[..., Experiment], lopsided: nn.Module
) -> None:
    images = _images(33, 47)

    logits = class_logits(lopsided, images, (33, 47), experiment())

    with torch.no_grad():
        expected = F.interpolate(lopsided(V.normalize(images / 255, **IMAGENET)), (33, 47), mode="bilinear")
    torch.testing.assert_close(logits, expected)


def test_views_are_averaged_as_logits_at_the_size_asked_for(
    experiment: Callable[..., Experiment], lopsided: nn.Module
) -> None:
    images, whole = _images(), experiment({"data.normalise": "unit"})
    looks = (View(32, 48, False), View(32, 48, True), View(40, 60, True))

    logits = class_logits(lopsided, images, (45, 70), whole, looks)

    with torch.no_grad():
        plain, large = images / 255, F.interpolate(images / 255, (40, 60), mode="bilinear")
        each = [lopsided(plain), lopsided(plain.flip(3)).flip(3), lopsided(large.flip(3)).flip(3)]
        expected = sum(F.interpolate(e, (45, 70), mode="bilinear") for e in each) / 3
    torch.testing.assert_close(logits, expected)
    # the mirrored views say something else, or this would show nothing
    assert (class_logits(lopsided, images, (45, 70), whole) - logits).abs().max() > 0.01


def test_a_model_that_mirrors_with_its_image_gains_nothing_from_a_flip(experiment: Callable[..., Experiment]) -> None:
    torch.manual_seed(4)
    pointwise = nn.Conv2d(3, 4, 1).eval()
    looks = (View(32, 48, False), View(32, 48, True))

    once = class_logits(pointwise, _images(), (32, 48), experiment())

    torch.testing.assert_close(class_logits(pointwise, _images(), (32, 48), experiment(), looks), once)


@pytest.mark.parametrize(("precision", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_the_network_runs_in_the_precision_asked_for_and_logits_are_float32(
    experiment: Callable[..., Experiment], lopsided: nn.Module, precision: str, dtype: torch.dtype
) -> None:
    seen = []
    lopsided.register_forward_hook(lambda _module, _inputs, output: seen.append(output.dtype))

    logits = class_logits(lopsided, _images(), (32, 48), experiment({"training.precision": precision}))

    assert seen == [dtype]
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, class_logits(lopsided, _images(), (32, 48), experiment()), rtol=0.05, atol=0.02)
