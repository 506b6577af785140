"""Steps that mix two frames: CutMix within a batch, and the style of a test image by Fourier transform.

Neither is an albumentations step, and neither keeps its place in a policy: Fourier steps come first, frame by
frame and before any other step; CutMix steps come last, on the finished batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import fft

from harness.config.augmentation import CutMix, Fourier, Step

Images = NDArray[np.uint8]
Truths = NDArray[np.uint8]


def needs_style(steps: Sequence[Step]) -> bool:
    """Whether a step takes the style of test images, so that `train_batches` must be given them."""
    return any(isinstance(step, Fourier) for step in steps)


def restyle(image: Images, styles: Images, steps: Sequence[Step], rng: np.random.Generator) -> Images:
    """Apply the Fourier steps of a policy to one image, uint8 (H W 3).

    Each draws one of `styles`, uint8 (N h w 3), resized bilinearly to the image's size.
    """
    for step in steps:
        if isinstance(step, Fourier) and rng.random() < step.probability:
            style = cv2.resize(styles[rng.integers(len(styles))], (image.shape[1], image.shape[0]))
            image = swap_low_frequencies(image, style, step.beta)
    return image


def swap_low_frequencies(image: Images, style: Images, beta: float) -> Images:
    """Give an image the low-frequency amplitudes of another of its size, its own phases kept; uint8 (H W 3).

    Low are the frequencies in the square of half side b = floor(beta x the shorter side) around the mean; b = 0
    moves the mean of each channel alone. The result is rounded and cut to 0-255. Reference: FDA, arXiv
    2004.05498, equations 3 and 4, whose code leaves its result outside 0-255 as it is.
    """
    height, width = image.shape[:2]
    half = int(beta * min(height, width))
    # a transform of real numbers keeps no negative frequencies across; down, they are in its second half
    rows = np.arange(height)
    low = np.ix_(np.minimum(rows, height - rows) <= half, np.arange(width // 2 + 1) <= half)
    spectrum = fft.rfft2(image.astype(np.float32), axes=(0, 1))
    amplitude = np.abs(fft.rfft2(style.astype(np.float32), axes=(0, 1))[low])
    spectrum[low] = amplitude * np.exp(1j * np.angle(spectrum[low]))
    changed = fft.irfft2(spectrum, s=(height, width), axes=(0, 1))
    return np.rint(changed).clip(0, 255).astype(np.uint8)


def cut_and_mix(
    images: Images, truths: Truths, steps: Sequence[Step], rng: np.random.Generator
) -> tuple[Images, Truths]:
    """Apply the CutMix steps of a policy to a batch: images uint8 (N H W 3), truths uint8 (N H W).

    A rectangle of a frame, truth included, becomes that of another frame of the batch. A batch of one frame stays
    as it is. Reference: arXiv 1905.04899, with lambda from Beta(1, 1); there one rectangle and one order of
    partners serve the whole batch, here each frame draws its own.
    """
    for step in steps:
        if isinstance(step, CutMix) and len(images) > 1:
            images, truths = _cut_and_mix(images, truths, step.probability, rng)
    return images, truths


def _cut_and_mix(images: Images, truths: Truths, probability: float, rng: np.random.Generator) -> tuple[Images, Truths]:
    mixed_images, mixed_truths = images.copy(), truths.copy()
    for frame in np.flatnonzero(rng.random(len(images)) < probability):
        other = (frame + rng.integers(1, len(images))) % len(images)
        window = _rectangle(truths.shape[1:], rng)
        mixed_images[frame][window] = images[other][window]
        mixed_truths[frame][window] = truths[other][window]
    return mixed_images, mixed_truths


def _rectangle(size: tuple[int, ...], rng: np.random.Generator) -> tuple[slice, ...]:
    """Sides of sqrt(1 - lambda) times the frame's, centred anywhere in it, cut off at its edges."""
    # Beta(1, 1) is the uniform distribution
    share = np.sqrt(1 - rng.random())
    lengths = [int(side * share) for side in size]
    starts = [int(rng.integers(side)) - length // 2 for side, length in zip(size, lengths, strict=True)]
    return tuple(slice(max(start, 0), start + length) for start, length in zip(starts, lengths, strict=True))
