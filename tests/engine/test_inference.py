from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.transforms import functional as V

from harness.config import Experiment
from harness.data import build_taxonomy
from harness.engine.inference import View, class_logits, normalise, predicted_classes, resize_logits, views

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


def test_no_batch_after_the_first_copies_constants_to_the_device(
    experiment: Callable[..., Experiment], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = experiment({"evaluation.suppress": SUPPRESSED})
    taxonomy, logits = build_taxonomy(whole.taxonomy), torch.zeros(1, 10, 4, 6)
    with torch.inference_mode():
        expected = normalise(_images(), "imagenet"), predicted_classes(logits, whole, taxonomy)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a tensor was made")

    monkeypatch.setattr(torch, "tensor", refuse)
    # of use in training too, whatever mode it was made in
    pixels = normalise(_images(), "imagenet")
    assert torch.equal(pixels, expected[0]) and not pixels.is_inference()
    assert torch.equal(predicted_classes(logits, whole, taxonomy), expected[1])


def test_unit_divides_by_255_only() -> None:
    images = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 3, 1, 1)

    assert normalise(images, "unit").flatten().tolist() == pytest.approx([0.0, 0.2, 1.0])


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


VIT = {"model.backbone": "vit_base_patch14_reg4_dinov2", "model.stride": None, "data.input_size": [364, 644]}
SMP = {"kind": "smp", "decoder": "DeepLabV3Plus", "encoder": "resnet101", "weights": "none"}


def test_the_eight_views_of_ignitias_phase_6_are_floored_to_patches(experiment: Callable[..., Experiment]) -> None:
    tta = {"scales": [0.9, 1.0, 1.1, 1.2], "flip": True, "rounding": "floor"}
    whole = experiment(VIT | {"evaluation.tta": tta})

    sizes = [(322, 574), (364, 644), (392, 700), (434, 770)]
    assert views(whole, whole.evaluation.tta) == tuple(View(*size, flip) for size in sizes for flip in (False, True))
    # rounded to the nearest, as their document has it, one size is another
    nearest = experiment(VIT | {"evaluation.tta": tta | {"rounding": "nearest"}})
    assert [(v.height, v.width) for v in views(nearest, nearest.evaluation.tta)[::2]] == [
        (322, 574), (364, 644), (406, 714), (434, 770)
    ]  # fmt: skip


@pytest.mark.parametrize("rounding", ["nearest", "floor"])
def test_the_six_views_of_codecrunch_are_exact_whatever_the_rounding(
    experiment: Callable[..., Experiment], rounding: str
) -> None:
    tta = {"scales": [0.75, 1.0, 1.25], "flip": True, "rounding": rounding}
    whole = experiment({"model": SMP, "data.input_size": [512, 896], "evaluation.tta": tta})

    sizes = [(384, 672), (512, 896), (640, 1120)]
    assert views(whole, whole.evaluation.tta) == tuple(View(*size, flip) for size in sizes for flip in (False, True))


def test_an_exact_multiple_is_not_floored_away_by_the_last_bit(experiment: Callable[..., Experiment]) -> None:
    # 350 * 1.4 is 489.99999999999994 in floating point, and 35 patches of 14
    tta = {"scales": [1.4], "rounding": "floor"}
    whole = experiment(VIT | {"data.input_size": [350, 350], "evaluation.tta": tta})

    assert views(whole, whole.evaluation.tta) == (View(490, 490, False),)


def test_a_floored_view_keeps_at_least_one_patch(experiment: Callable[..., Experiment]) -> None:
    whole = experiment(VIT | {"evaluation.tta": {"scales": [0.01], "rounding": "floor"}})

    assert views(whole, whole.evaluation.tta) == (View(14, 14, False),)


# ---- suppression ----

SUPPRESSED = ["Ground Clutter", "Flowers", "Logs"]


def _ten_class_logits() -> torch.Tensor:
    """At half the size asked for, the suppressed classes ahead of all others everywhere."""
    logits = torch.randn(1, 10, 16, 24, generator=torch.Generator().manual_seed(5))
    logits[:, 4:7] += 10
    return logits


def test_the_next_best_class_takes_the_place_of_a_suppressed_one(experiment: Callable[..., Experiment]) -> None:
    whole = experiment({"evaluation.suppress": SUPPRESSED})
    taxonomy, logits = build_taxonomy(whole.taxonomy), _ten_class_logits()

    predicted = predicted_classes(logits, whole, taxonomy)

    left = [i for i, name in enumerate(taxonomy.names) if name not in SUPPRESSED]
    assert [taxonomy.names.index(name) for name in SUPPRESSED] == [4, 5, 6]
    assert torch.equal(predicted, torch.tensor(left)[logits[:, left].argmax(1)])
    assert set(predicted_classes(logits, experiment(), taxonomy).unique().tolist()) <= {4, 5, 6}
    # the loss sees these very logits afterwards
    assert logits.isfinite().all()


def test_suppressing_before_the_resize_makes_nan_that_wins_and_after_it_does_not(
    experiment: Callable[..., Experiment],
) -> None:
    # CodeCrunch C-T7: 0 times -inf is nan in the interpolation, and argmax takes nan for the largest
    whole = experiment({"evaluation.suppress": SUPPRESSED})
    taxonomy, small = build_taxonomy(whole.taxonomy), _ten_class_logits()

    trapped = small.clone()
    trapped[:, 4:7] = -torch.inf
    trapped = F.interpolate(trapped, size=(33, 50), mode="bilinear", align_corners=False)
    ours = predicted_classes(resize_logits(small, (33, 50)), whole, taxonomy)

    assert trapped.isnan().any()
    wrong = torch.isin(trapped.argmax(1), torch.tensor([4, 5, 6]))
    assert torch.equal(wrong, trapped.isnan().any(1))
    assert not torch.isin(ours, torch.tensor([4, 5, 6])).any()
    assert torch.equal(ours[~wrong], trapped.argmax(1)[~wrong])


def test_views_of_other_sizes_and_suppression_give_finite_logits(
    experiment: Callable[..., Experiment], lopsided: nn.Module
) -> None:
    names = {"taxonomy": {"kind": "named", "name": "falcon10"}, "evaluation.suppress": ["Trees"]}
    whole = experiment(names)
    looks = (View(24, 36, False), View(24, 36, True), View(40, 60, False))

    logits = class_logits(lopsided, _images(), (45, 70), whole, looks)

    assert logits.isfinite().all()
    predicted = predicted_classes(logits, whole, build_taxonomy(whole.taxonomy))
    assert (logits.argmax(1) == 0).any() and not (predicted == 0).any()
