"""The peer for input: how the teams' scripts make a sample, written plainly after their scripts' description.

Two PNG files are decoded for every sample of every epoch, the mask's ids are converted one class after the
other, and the image is resized, augmented and normalised as float32 on the processor.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import albumentations as A
import cv2
import numpy as np
from albumentations.pytorch import ToTensorV2
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from harness.data import list_frames

#: raw id to class of the Ignitia team; 600 (Flowers) is missing there and so becomes 0
IGNITIA = {0: 0, 100: 1, 200: 2, 300: 3, 500: 4, 550: 5, 700: 6, 800: 7, 7100: 8, 10000: 9}
#: raw id to class of the CodeCrunch team; every other id is ignored
CODECRUNCH = {100: 0, 200: 1, 300: 2, 500: 3, 800: 4, 7100: 5, 10000: 6}


class TeamFrames(Dataset):
    """Images float32 (3 H W), normalised, and masks int64 (H W), from PNG files; `unlisted` is any other id's class."""

    def __init__(self, root: Path, split: str, transform: A.Compose, ids: dict[int, int], unlisted: int = 0) -> None:
        self.frames = list_frames(root, split)
        self.transform, self.ids, self.unlisted = transform, ids, unlisted

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        frame = self.frames[index]
        image = cv2.cvtColor(cv2.imread(str(frame.image)), cv2.COLOR_BGR2RGB)
        mask = convert_mask(cv2.imread(str(frame.mask), cv2.IMREAD_UNCHANGED), self.ids, self.unlisted)
        changed = self.transform(image=image, mask=mask)
        return changed["image"], changed["mask"].long()


def convert_mask(raw: np.ndarray, ids: dict[int, int], unlisted: int) -> np.ndarray:
    """Raw ids (H W) to classes, uint8 (H W), with one comparison of the whole mask for each id."""
    classes = np.full_like(raw, unlisted, dtype=np.uint8)
    for raw_id, index in ids.items():
        classes[raw == raw_id] = index
    return classes


def team_loader(frames: TeamFrames, batch_size: int, shuffle: bool) -> DataLoader:
    """The teams' loader: no worker processes, the library's own collation."""
    return DataLoader(frames, batch_size=batch_size, shuffle=shuffle, num_workers=0)


def plain(height: int, width: int) -> A.Compose:
    """Resize and normalise: validation of every phase, and training of phase 1."""
    return _compose(height, width, [])


def ignitia_phase2(height: int, width: int) -> A.Compose:
    """The training transform of phase 2."""
    tone = A.OneOf([_light(0.2), A.HueSaturationValue(10, 20, 20)], p=0.3)
    return _compose(height, width, [*_flips(), _move(0.05, 0.10, 15, 0.3), _blur(), tone])


def ignitia_phase3(height: int, width: int) -> A.Compose:
    """The training transform of phase 3."""
    tone = A.OneOf([_light(0.3), A.HueSaturationValue(15, 25, 25)], p=0.4)
    shadow = A.RandomShadow(shadow_roi=(0, 0.5, 1, 1), p=0.15)
    clahe = A.CLAHE(clip_limit=2.0, p=0.15)
    return _compose(height, width, [*_flips(), _move(0.08, 0.15, 20, 0.4), _blur(), tone, shadow, clahe])


def codecrunch_phase5(height: int, width: int) -> A.Compose:
    """The training transform of CodeCrunch's phase 5; the crop resizes."""
    return A.Compose(
        [
            A.RandomResizedCrop((height, width), scale=(0.5, 1.0), ratio=(1.3125, 2.1875)),
            A.HorizontalFlip(p=0.5),
            A.ColorJitter(brightness=(0.7, 1.3), contrast=(0.7, 1.3), saturation=(0.7, 1.3), hue=(-0.05, 0.05), p=0.6),
            A.RandomBrightnessContrast(brightness_limit=(-0.3, 0.1), contrast_limit=(-0.2, 0.2), p=0.4),
            A.CLAHE(clip_limit=4.0, p=0.2),
            A.GaussianBlur(blur_limit=(3, 5), sigma_limit=(0.5, 3.0), p=0.15),
            A.Normalize(),
            ToTensorV2(),
        ]
    )


def _compose(height: int, width: int, steps: Sequence[A.BasicTransform | A.OneOf]) -> A.Compose:
    return A.Compose([A.Resize(height, width), *steps, A.Normalize(), ToTensorV2()])


def _flips() -> list[A.BasicTransform]:
    return [A.HorizontalFlip(p=0.5), A.VerticalFlip(p=0.1)]


def _move(shift: float, scale: float, degrees: float, chance: float) -> A.BasicTransform:
    # what A.ShiftScaleRotate of 2.0.8 becomes, without its warning
    factors, shifts = (1 - scale, 1 + scale), (-shift, shift)
    return A.Affine(
        scale={"x": factors, "y": factors},
        translate_percent={"x": shifts, "y": shifts},
        rotate=(-degrees, degrees),
        keep_ratio=False,
        p=chance,
    )


def _blur() -> A.OneOf:
    return A.OneOf([A.GaussianBlur(blur_limit=(3, 5)), A.MedianBlur(blur_limit=(3, 5))], p=0.2)


def _light(share: float) -> A.BasicTransform:
    return A.RandomBrightnessContrast(brightness_limit=share, contrast_limit=share)
