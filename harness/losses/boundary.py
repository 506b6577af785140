"""Where class boundaries lie: the map by which the boundary term lifts pixels (Ignitia, phase 6)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.config import IGNORE

#: pixels, counted in steps along rows and columns: two erosions by a cross
REACH = 2
#: a label that no pixel has
OUTSIDE = -1


def boundary_map(labels: Tensor, sigma: float, dtype: torch.dtype) -> Tensor:
    """Blur the boundaries of all classes and scale each image's largest value to 1.

    `labels` (N H W): int64, class of each pixel or IGNORE. `sigma`: deviation of the blur, pixels.
    Returns (N H W) of the float type `dtype`, 0-1, on the labels' device and without a graph; 0 at ignored
    pixels.

    Ignitia erodes the mask of each class twice with a cross, takes mask minus eroded, blurs it as SciPy's
    `gaussian_filter` does, sums over the classes and divides by the image's maximum + 1e-6. Masks of classes
    do not overlap and the blur is linear, so one mask of all edges gives the same map. As published, the
    frame of the image is an edge: where one horizon parts 364 x 644 pixels, the outer 6 hold 61 % of the map.

    Ignitia ignores no pixel. Here an ignored pixel is no edge and makes none beside it, since what lies there
    is not known; it takes its share of the blur, and the image's maximum is that of the labelled pixels.
    """
    blurred = _blur(_blur(edges(labels).to(dtype), sigma, dim=1), sigma, dim=2)
    labelled = torch.where(labels != IGNORE, blurred, 0.0)
    return labelled / (labelled.amax((1, 2), keepdim=True) + 1e-6)


def edges(labels: Tensor) -> Tensor:
    """Whether a labelled pixel has another class, or the end of the frame, within two steps (N H W), bool."""
    _, height, width = labels.shape
    padded = F.pad(labels, (REACH, REACH, REACH, REACH), value=OUTSIDE)
    found = torch.zeros_like(labels, dtype=torch.bool)
    for down, right in _steps():
        other = padded[:, REACH + down :, REACH + right :][:, :height, :width]
        found |= (other != labels) & (other != IGNORE)
    return found & (labels != IGNORE)


def _steps() -> list[tuple[int, int]]:
    reach = range(-REACH, REACH + 1)
    return [(down, right) for down in reach for right in reach if 0 < abs(down) + abs(right) <= REACH]


def _blur(values: Tensor, sigma: float, dim: int) -> Tensor:
    """Average along one dimension with Gaussian weights, cut at 4 sigma, the image mirrored at its ends."""
    radius, size = int(4 * sigma + 0.5), values.shape[dim]
    padded = values.index_select(dim, _mirrored(size, radius, values.device))
    shares = [math.exp(-0.5 * (step / sigma) ** 2) for step in range(-radius, radius + 1)]
    total = torch.zeros_like(values)
    # Not a convolution: autocast and TF32 would round it to 10 bits.
    for start, share in enumerate(shares):
        total.add_(padded.narrow(dim, start, size), alpha=share / sum(shares))
    return total


def _mirrored(size: int, radius: int, device: torch.device) -> Tensor:
    """Positions of a line continued by `radius` at both ends: 1 0 | 0 1 2 | 2 1, again and again."""
    there_and_back = torch.arange(-radius, size + radius, device=device) % (2 * size)
    return torch.minimum(there_and_back, 2 * size - 1 - there_and_back)
