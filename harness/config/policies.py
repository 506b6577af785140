"""The published augmentation policies, as lists of steps.

Ignitia: the team's six training scripts. CodeCrunch: its phase 5 script. DesertMind: its phases 2.2 and 3.
"""

from __future__ import annotations

from harness.config.augmentation import (
    AugmentationConfig,
    Blur,
    BrightnessContrast,
    Clahe,
    ColourJitter,
    GaussianBlur,
    HorizontalFlip,
    NamedPolicy,
    PolicyName,
    RandomCrop,
    RandomResizedCrop,
    Shadow,
    ShiftScaleRotate,
    Step,
    Tone,
    VerticalFlip,
)

_FLIPS = (HorizontalFlip(probability=0.5), VerticalFlip(probability=0.1))
_BLUR = Blur(gaussian=(3, 5), median=(3, 5), probability=0.2)
_STRONG_TONE = Tone(brightness=0.3, contrast=0.3, hue=15, saturation=25, value=25, probability=0.4)
_UNCHANGED = (1.0, 1.0)

POLICIES: dict[PolicyName, tuple[Step, ...]] = {
    "none": (),
    "flip": (HorizontalFlip(probability=0.5),),
    "ignitia_phase2": (
        *_FLIPS,
        ShiftScaleRotate(shift=0.05, scale=0.10, degrees=15, probability=0.3),
        _BLUR,
        Tone(brightness=0.2, contrast=0.2, hue=10, saturation=20, value=20, probability=0.3),
    ),
    "ignitia_phase3": (
        *_FLIPS,
        ShiftScaleRotate(shift=0.08, scale=0.15, degrees=20, probability=0.4),
        _BLUR,
        _STRONG_TONE,
        Shadow(probability=0.15),
        Clahe(clip_limit=2.0, probability=0.15),
    ),
    "ignitia_phase4": (
        *_FLIPS,
        ShiftScaleRotate(shift=0.10, scale=0.20, degrees=15, probability=0.5),
        _BLUR,
        _STRONG_TONE,
        Shadow(probability=0.15),
        Clahe(clip_limit=2.0, probability=0.15),
    ),
    "ignitia_phase5": (
        *_FLIPS,
        ShiftScaleRotate(shift=0.10, scale=0.10, degrees=15, probability=0.5),
        Blur(gaussian=(3, 7), median=(3, 5), probability=0.2),
        _STRONG_TONE,
        Clahe(clip_limit=4.0, probability=0.30),
    ),
    "ignitia_phase6": (
        *_FLIPS,
        ShiftScaleRotate(shift=0.08, scale=0.08, degrees=12, probability=0.5),
        _BLUR,
        Tone(brightness=0.25, contrast=0.25, hue=12, saturation=20, value=20, probability=0.4),
        Clahe(clip_limit=4.0, probability=0.30),
    ),
    "codecrunch_moderate": (
        RandomResizedCrop(area=(0.5, 1.0), ratio=(1.3125, 2.1875)),
        HorizontalFlip(probability=0.5),
        ColourJitter(
            brightness=(0.7, 1.3), contrast=(0.7, 1.3), saturation=(0.7, 1.3), hue=(-0.05, 0.05), probability=0.6
        ),
        BrightnessContrast(brightness=(-0.3, 0.1), contrast=(-0.2, 0.2), probability=0.4),
        Clahe(clip_limit=4.0, probability=0.2),
        GaussianBlur(kernel=(3, 5), sigma=(0.5, 3.0), probability=0.15),
    ),
    # brightness, then contrast, both always: two steps because one jitter draws its own order
    "desertmind_phase2": (
        HorizontalFlip(probability=0.5),
        ColourJitter(
            brightness=(0.8, 1.2), contrast=_UNCHANGED, saturation=_UNCHANGED, hue=(0.0, 0.0), probability=1.0
        ),
        ColourJitter(
            brightness=_UNCHANGED, contrast=(0.8, 1.2), saturation=_UNCHANGED, hue=(0.0, 0.0), probability=1.0
        ),
    ),
    "desertmind_phase3": (RandomCrop(height=512, width=512), HorizontalFlip(probability=0.5)),
}


def policy_steps(augmentation: AugmentationConfig) -> tuple[Step, ...]:
    """The steps of an augmentation section, whichever way it was written."""
    if isinstance(augmentation, NamedPolicy):
        return POLICIES[augmentation.policy]
    return augmentation.steps
