"""Augmentation as data: a list of steps, or the name of a published list.

Ranges are (low, high). A step that moves pixels fills the uncovered mask with *ignore*, never with a class.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from harness.config.base import Section

Probability = Annotated[float, Field(ge=0, le=1, description="chance that the step is applied, 0-1")]
Factor = Annotated[float, Field(ge=0, le=10)]
Shift = Annotated[float, Field(ge=-1, le=1)]
Kernel = Annotated[int, Field(ge=3, le=31, description="pixels, odd")]


class HorizontalFlip(Section):
    kind: Literal["horizontal_flip"] = "horizontal_flip"
    probability: Probability = 0.5


class VerticalFlip(Section):
    kind: Literal["vertical_flip"] = "vertical_flip"
    probability: Probability = 0.5


class ShiftScaleRotate(Section):
    kind: Literal["shift_scale_rotate"] = "shift_scale_rotate"
    shift: float = Field(0.05, ge=0, le=1, description="largest shift, share of the side")
    scale: float = Field(0.1, ge=0, lt=1, description="largest change of scale, share")
    degrees: float = Field(15.0, ge=0, le=180, description="largest rotation, degrees")
    probability: Probability = 0.5


class Blur(Section):
    """One of Gaussian and median blur."""

    kind: Literal["blur"] = "blur"
    gaussian: tuple[Kernel, Kernel] = Field((3, 5), description="kernel range of the Gaussian, pixels, odd")
    median: tuple[Kernel, Kernel] = Field((3, 5), description="kernel range of the median, pixels, odd")
    probability: Probability = 0.2


class GaussianBlur(Section):
    kind: Literal["gaussian_blur"] = "gaussian_blur"
    kernel: tuple[Kernel, Kernel] = Field((3, 5), description="kernel range, pixels, odd")
    sigma: tuple[Factor, Factor] = Field((0.5, 3.0), description="deviation range, pixels")
    probability: Probability = 0.15


class BrightnessContrast(Section):
    kind: Literal["brightness_contrast"] = "brightness_contrast"
    brightness: tuple[Shift, Shift] = Field((-0.2, 0.2), description="added, share of the full range")
    contrast: tuple[Shift, Shift] = Field((-0.2, 0.2), description="factor minus one")
    probability: Probability = 0.5


class HueSaturationValue(Section):
    kind: Literal["hue_saturation_value"] = "hue_saturation_value"
    hue: int = Field(10, ge=0, le=180, description="largest shift, OpenCV hue units (2 degrees)")
    saturation: int = Field(20, ge=0, le=255, description="largest shift, 0-255")
    value: int = Field(20, ge=0, le=255, description="largest shift, 0-255")
    probability: Probability = 0.5


class Tone(Section):
    """One of brightness+contrast and hue/saturation/value shift (Ignitia's step 6)."""

    kind: Literal["tone"] = "tone"
    brightness: float = Field(0.2, ge=0, le=1, description="largest addition, share of the full range")
    contrast: float = Field(0.2, ge=0, le=1, description="largest change of the factor")
    hue: int = Field(10, ge=0, le=180, description="largest shift, OpenCV hue units (2 degrees)")
    saturation: int = Field(20, ge=0, le=255, description="largest shift, 0-255")
    value: int = Field(20, ge=0, le=255, description="largest shift, 0-255")
    probability: Probability = 0.3


class ColourJitter(Section):
    """Brightness, contrast, saturation factors and a hue shift, in random order."""

    kind: Literal["colour_jitter"] = "colour_jitter"
    brightness: tuple[Factor, Factor] = Field((0.7, 1.3), description="factor range")
    contrast: tuple[Factor, Factor] = Field((0.7, 1.3), description="factor range")
    saturation: tuple[Factor, Factor] = Field((0.7, 1.3), description="factor range")
    hue: tuple[Annotated[float, Field(ge=-0.5, le=0.5)], Annotated[float, Field(ge=-0.5, le=0.5)]] = Field(
        (-0.05, 0.05), description="shift range, share of the circle"
    )
    probability: Probability = 0.6


class RgbShift(Section):
    kind: Literal["rgb_shift"] = "rgb_shift"
    limit: int = Field(20, ge=0, le=255, description="largest shift of each channel, 0-255")
    probability: Probability = 0.5


class ChannelShuffle(Section):
    kind: Literal["channel_shuffle"] = "channel_shuffle"
    probability: Probability = 0.1


class Grey(Section):
    kind: Literal["grey"] = "grey"
    probability: Probability = 0.1


class Shadow(Section):
    """One or two five-cornered shadows on the lower half."""

    kind: Literal["shadow"] = "shadow"
    probability: Probability = 0.15


class Clahe(Section):
    kind: Literal["clahe"] = "clahe"
    clip_limit: float = Field(2.0, ge=1, le=40, description="largest contrast limit; drawn from 1 to this")
    tiles: int = Field(8, ge=1, le=64, description="tiles along each side")
    probability: Probability = 0.15


class RandomResizedCrop(Section):
    """A crop of the native frame, resized to the input size."""

    kind: Literal["random_resized_crop"] = "random_resized_crop"
    area: tuple[Annotated[float, Field(gt=0, le=1)], Annotated[float, Field(gt=0, le=1)]] = Field(
        (0.5, 1.0), description="share of the frame's area"
    )
    ratio: tuple[Annotated[float, Field(gt=0, le=10)], Annotated[float, Field(gt=0, le=10)]] = Field(
        (1.3125, 2.1875), description="width over height"
    )


class RandomCrop(Section):
    """A crop of the native frame at native scale; a smaller frame is padded with *ignore*."""

    kind: Literal["random_crop"] = "random_crop"
    height: int = Field(512, ge=16, description="pixels")
    width: int = Field(512, ge=16, description="pixels")


class CutMix(Section):
    """A rectangle of each frame, mask included, replaced by that of another frame of the batch (arXiv 1905.04899)."""

    kind: Literal["cutmix"] = "cutmix"
    probability: Probability = 0.5


class Fourier(Section):
    """Low frequencies' amplitude taken from a test frame (FDA, arXiv 2004.05498); reads test images, no test mask."""

    kind: Literal["fourier"] = "fourier"
    beta: float = Field(0.01, gt=0, le=0.5, description="half side of the swapped square, share of the spectrum's side")
    probability: Probability = 0.5


Step = Annotated[
    HorizontalFlip | VerticalFlip | ShiftScaleRotate | Blur | GaussianBlur | BrightnessContrast
    | HueSaturationValue | Tone | ColourJitter | RgbShift | ChannelShuffle | Grey | Shadow | Clahe
    | RandomResizedCrop | RandomCrop | CutMix | Fourier,
    Field(discriminator="kind"),
]  # fmt: skip

PolicyName = Literal[
    "none", "flip", "ignitia_phase2", "ignitia_phase3", "ignitia_phase4", "ignitia_phase5", "ignitia_phase6",
    "codecrunch_moderate", "desertmind_phase2", "desertmind_phase3",
]  # fmt: skip


class NamedPolicy(Section):
    """A policy by name; the names and their steps are in `harness.config.policies`."""

    kind: Literal["named"] = "named"
    policy: PolicyName = Field("flip", description="which policy")


class StepList(Section):
    """A policy step by step, applied in order."""

    kind: Literal["steps"] = "steps"
    steps: tuple[Step, ...] = Field((), description="steps, applied in order")


AugmentationConfig = Annotated[NamedPolicy | StepList, Field(discriminator="kind")]
