"""From images to class logits: normalisation, precision, views."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor, nn

from harness.config import Experiment
from harness.config.training import TestTimeAugmentation
from harness.data import Taxonomy
from harness.losses import resize_logits
from harness.metrics.confusion_torch import class_of_highest
from harness.models import size_multiple

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_DEVIATION = (0.229, 0.224, 0.225)
_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


class View(NamedTuple):
    """One look at an image: its height and width, and whether it is mirrored."""

    height: int
    width: int
    mirrored: bool


def normalise(images: Tensor, how: str) -> Tensor:
    """uint8 (N 3 H W) as float32, in channels-last memory: `imagenet` statistics, or `unit` (divided by 255)."""
    unit = images.float().contiguous(memory_format=torch.channels_last).div_(255)
    if how == "unit":
        return unit
    # statistics repeated along whole rows: an inner dimension of 3 would keep a CPU from computing 16 at a time
    rows = unit.permute(0, 2, 3, 1).flatten(2)
    mean, deviation = (
        _constant(values, images.device, images.shape[-1]) for values in (_IMAGENET_MEAN, _IMAGENET_DEVIATION)
    )
    rows.sub_(mean).div_(deviation)
    return unit


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def _constant(values: tuple[float, ...] | tuple[int, ...], device: torch.device, times: int = 1) -> Tensor:
    """A tensor that every batch needs, made once: each copy to a GPU waits for all that the GPU has yet to do."""
    return torch.tensor(values, device=device).repeat(times)


def autocast(precision: str, device: torch.device):  # noqa: ANN201  (a context manager)
    """The autocast context of a precision; none for fp32."""
    return torch.autocast(device.type, _AUTOCAST[precision]) if precision in _AUTOCAST else nullcontext()


def views(experiment: Experiment, tta: TestTimeAugmentation) -> tuple[View, ...]:
    """The views of test-time augmentation, each side rounded to a size that the model takes."""
    multiple = size_multiple(experiment.model)
    rounded = math.floor if tta.rounding == "floor" else round
    sizes = [_scaled(experiment.data.input_size, scale, multiple, rounded) for scale in tta.scales]
    return tuple(View(*size, mirrored) for size in sizes for mirrored in ((False, True) if tta.flip else (False,)))


def _scaled(size: tuple[int, int], scale: float, multiple: int, rounded: Callable[[float], int]) -> tuple[int, int]:
    # 1.4 x 350 is 489.99999999999994 and means 490
    height, width = (max(1, rounded(side * scale / multiple + 1e-9)) * multiple for side in size)
    return height, width


def forward(model: nn.Module, inputs: Tensor, experiment: Experiment) -> Tensor:
    """Logits (N C h w) of uint8 images (N 3 H W), or of stored features (N C' h' w') of the model's stem."""
    with autocast(experiment.training.precision, inputs.device):
        if inputs.dtype == torch.uint8:
            return model(normalise(inputs, experiment.data.normalise))
        # numpy knows no bfloat16: its bits were stored as int16
        features = inputs.view(torch.bfloat16) if inputs.dtype == torch.int16 else inputs
        return model.classify(features, experiment.data.input_size)


@torch.inference_mode()
def class_logits(
    model: nn.Module,
    images: Tensor,
    size: tuple[int, int],
    experiment: Experiment,
    looks: tuple[View, ...] | None = None,
) -> Tensor:
    """Logits (N C H W) float32 at `size`, averaged over the views.

    Args:
        images: uint8 (N 3 h w) at the input size, on the model's device, or, without views, stored features.
        size: height and width of the result, pixels.
        looks: the views; none: the image as it is.
    """
    if not looks:
        return resize_logits(forward(model, images, experiment), size)
    pixels = normalise(images, experiment.data.normalise)
    total = torch.zeros((), device=images.device)
    for look in looks:
        total = total + _logits_of_view(model, pixels, look, size, experiment.training.precision)
    return total / len(looks)


def _logits_of_view(model: nn.Module, pixels: Tensor, look: View, size: tuple[int, int], precision: str) -> Tensor:
    seen = resize_logits(pixels, (look.height, look.width))
    with autocast(precision, pixels.device):
        logits = model(seen.flip(-1) if look.mirrored else seen)
    return resize_logits(logits.flip(-1) if look.mirrored else logits, size)


def predicted_classes(logits: Tensor, experiment: Experiment, taxonomy: Taxonomy) -> Tensor:
    """The class of the highest logit, int64 (N H W); never one that `evaluation.suppress` names.

    Suppressed here, after the last resize: -inf times an interpolation weight of 0 is nan (CodeCrunch C-T7).
    """
    suppressed = tuple(taxonomy.names.index(name) for name in experiment.evaluation.suppress)
    if suppressed:
        logits = logits.index_fill(1, _constant(suppressed, logits.device), -torch.inf)
    return class_of_highest(logits)
