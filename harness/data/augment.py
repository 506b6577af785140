"""Random changes of a training frame: validated steps to one albumentations pipeline, drawn from one seed.

The published policies keep their published ranges. What differs on purpose: pixels that a step uncovers are
ignored, where the teams' masks got class 0 (trap T2); `border` brings that back.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from harness.config import IGNORE, Section
from harness.config import augmentation as sections
from harness.config.augmentation import Step
from harness.errors import ConfigError

# albumentations asks a server for its newest version when it is imported
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"

import albumentations as A

Size = tuple[int, int]
Transform = A.BasicTransform | A.OneOf


def build_augmentation(steps: Sequence[Step], input_size: Size, border: int = IGNORE) -> A.Compose:
    """Build the pipeline of a list of steps; random_resized_crop resizes to `input_size` (height, width).

    `border` is what the mask gets where a step uncovers it. CutMix and Fourier steps are left out:
    `train_batches` applies them, the latter before and the former after this pipeline. Raises ConfigError that
    names the step: a range whose low is above its high, an even kernel, or what albumentations refuses.
    """
    return A.Compose(
        [
            _build(step, f"augmentation.steps.{i}", input_size, border)
            for i, step in enumerate(steps)
            if not isinstance(step, sections.CutMix | sections.Fourier)
        ]
    )


def augment(
    compose: A.Compose, image: NDArray[np.uint8], mask: NDArray[np.uint8], seed: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Change one frame: image uint8 (H W 3), mask uint8 (H W); the same seed makes the same change.

    One pair of generators is shared by all steps. `Compose.set_random_seed` would give every step its own
    copy of one stream: the first draw of each would be the same number, and a vertical flip would only ever
    meet frames that are flipped horizontally too. It would also take nine times as long (150 against 17 us
    for six steps).
    """
    compose.set_random_state(np.random.default_rng(seed), random.Random(seed))
    changed = compose(image=image, mask=mask)
    return changed["image"], changed["mask"]


def needs_native(steps: Sequence[Step]) -> bool:
    """Whether a step crops, so that frames must come at native size, not resized to the input size."""
    return any(isinstance(step, sections.RandomResizedCrop | sections.RandomCrop) for step in steps)


def _build(step: Step, place: str, input_size: Size, border: int) -> Transform:
    where = f"{place} ({step.kind})"
    _check_ranges(step, where)
    try:
        if isinstance(step, sections.RandomResizedCrop):
            return _random_resized_crop(step, input_size)
        if type(step) in _UNCOVERING:
            return _UNCOVERING[type(step)](step, border)
        return _BUILDERS[type(step)](step)
    except ValueError as error:
        raise ConfigError(f"{where}: albumentations refuses these values: {error}") from error


def _check_ranges(step: Section, where: str) -> None:
    # albumentations would put some of these right in silence, or with a warning, and train something else
    for field, value in step:
        if not isinstance(value, tuple):
            continue
        low, high = value
        if low > high:
            raise ConfigError(f"{where}: {field} ({low}, {high}): low is above high; use ({high}, {low})")
        if field == "sigma" and low == 0:
            raise ConfigError(f"{where}: sigma starts at 0, a blur without width; start at 0.1 or more")
        for size in value if field in ("gaussian", "median", "kernel") else ():
            if size % 2 == 0:
                raise ConfigError(f"{where}: {field} {size} is even, a kernel is odd; use {size - 1} or {size + 1}")


def _horizontal_flip(step: sections.HorizontalFlip) -> Transform:
    return A.HorizontalFlip(p=step.probability)


def _vertical_flip(step: sections.VerticalFlip) -> Transform:
    return A.VerticalFlip(p=step.probability)


def _shift_scale_rotate(step: sections.ShiftScaleRotate, border: int) -> Transform:
    # A.ShiftScaleRotate of 2.0.8 is this Affine with a warning; width and height scale apart (keep_ratio
    # False)
    scale = (1 - step.scale, 1 + step.scale)
    shift = (-step.shift, step.shift)
    return A.Affine(
        scale={"x": scale, "y": scale},
        translate_percent={"x": shift, "y": shift},
        rotate=(-step.degrees, step.degrees),
        interpolation=cv2.INTER_LINEAR,
        mask_interpolation=cv2.INTER_NEAREST,
        keep_ratio=False,
        border_mode=cv2.BORDER_CONSTANT,
        fill=0,
        fill_mask=border,
        p=step.probability,
    )


def _blur(step: sections.Blur) -> Transform:
    # 2.0.8 draws a Gaussian kernel among all integers and rounds up to odd: (3, 5) is 3 once and 5 twice in three
    gaussian = A.GaussianBlur(blur_limit=step.gaussian, sigma_limit=(0.5, 3.0))
    return A.OneOf([gaussian, A.MedianBlur(blur_limit=step.median)], p=step.probability)


def _gaussian_blur(step: sections.GaussianBlur) -> Transform:
    return A.GaussianBlur(blur_limit=step.kernel, sigma_limit=step.sigma, p=step.probability)


def _brightness_contrast(step: sections.BrightnessContrast) -> Transform:
    return A.RandomBrightnessContrast(
        brightness_limit=step.brightness,
        contrast_limit=step.contrast,
        brightness_by_max=True,
        p=step.probability,
    )


def _hue_saturation_value(step: sections.HueSaturationValue) -> Transform:
    return A.HueSaturationValue(
        hue_shift_limit=(-step.hue, step.hue),
        sat_shift_limit=(-step.saturation, step.saturation),
        val_shift_limit=(-step.value, step.value),
        p=step.probability,
    )


def _tone(step: sections.Tone) -> Transform:
    light = A.RandomBrightnessContrast(
        brightness_limit=(-step.brightness, step.brightness),
        contrast_limit=(-step.contrast, step.contrast),
        brightness_by_max=True,
        p=0.5,
    )
    colour = A.HueSaturationValue(
        hue_shift_limit=(-step.hue, step.hue),
        sat_shift_limit=(-step.saturation, step.saturation),
        val_shift_limit=(-step.value, step.value),
        p=0.5,
    )
    return A.OneOf([light, colour], p=step.probability)


def _colour_jitter(step: sections.ColourJitter) -> Transform:
    return A.ColorJitter(
        brightness=step.brightness,
        contrast=step.contrast,
        saturation=step.saturation,
        hue=step.hue,
        p=step.probability,
    )


def _rgb_shift(step: sections.RgbShift) -> Transform:
    limit = (-step.limit, step.limit)
    return A.RGBShift(r_shift_limit=limit, g_shift_limit=limit, b_shift_limit=limit, p=step.probability)


def _channel_shuffle(step: sections.ChannelShuffle) -> Transform:
    return A.ChannelShuffle(p=step.probability)


def _grey(step: sections.Grey) -> Transform:
    return A.ToGray(num_output_channels=3, method="weighted_average", p=step.probability)


def _shadow(step: sections.Shadow) -> Transform:
    return A.RandomShadow(
        shadow_roi=(0, 0.5, 1, 1),
        num_shadows_limit=(1, 2),
        shadow_dimension=5,
        shadow_intensity_range=(0.5, 0.5),
        p=step.probability,
    )


def _clahe(step: sections.Clahe) -> Transform:
    return A.CLAHE(clip_limit=(1.0, step.clip_limit), tile_grid_size=(step.tiles, step.tiles), p=step.probability)


def _random_resized_crop(step: sections.RandomResizedCrop, input_size: Size) -> Transform:
    return A.RandomResizedCrop(
        size=input_size,
        scale=step.area,
        ratio=step.ratio,
        interpolation=cv2.INTER_LINEAR,
        mask_interpolation=cv2.INTER_NEAREST,
        p=1.0,
    )


def _random_crop(step: sections.RandomCrop, border: int) -> Transform:
    return A.RandomCrop(
        height=step.height,
        width=step.width,
        pad_if_needed=True,
        border_mode=cv2.BORDER_CONSTANT,
        fill=0,
        fill_mask=border,
        p=1.0,
    )


#: steps that uncover a part of the mask
_UNCOVERING: dict[type[Section], Callable[..., Transform]] = {
    sections.ShiftScaleRotate: _shift_scale_rotate,
    sections.RandomCrop: _random_crop,
}
#: the rest, but for random_resized_crop: it alone needs the input size
_BUILDERS: dict[type[Section], Callable[..., Transform]] = {
    sections.HorizontalFlip: _horizontal_flip,
    sections.VerticalFlip: _vertical_flip,
    sections.Blur: _blur,
    sections.GaussianBlur: _gaussian_blur,
    sections.BrightnessContrast: _brightness_contrast,
    sections.HueSaturationValue: _hue_saturation_value,
    sections.Tone: _tone,
    sections.ColourJitter: _colour_jitter,
    sections.RgbShift: _rgb_shift,
    sections.ChannelShuffle: _channel_shuffle,
    sections.Grey: _grey,
    sections.Shadow: _shadow,
    sections.Clahe: _clahe,
}
