"""Bilinear resizing of logits, by kernel or as two matrix products."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

#: below this many rows and columns two products beat the kernel on a CPU, forward and backward
SMALL = 112


def resize_logits(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear (N C h w) to (N C H W) at `size`, corners not aligned, without antialiasing.

    Takes any float type; returns float32, float64 for float64. Equal to `F.interpolate` to float32 rounding.

    On a CPU, logits of at most `SMALL` rows and columns (a patch grid) are enlarged by two matrix products;
    everything else, and every other device, takes torch's kernel. A product mixes a whole row or column: one
    logit that is not finite makes nan of its image's class.
    """
    precise = in_full_precision(logits)
    height, width = precise.shape[-2:]
    if (height, width) == tuple(size):
        return precise
    if precise.device.type == "cpu" and max(height, width) <= SMALL and height <= size[0] and width <= size[1]:
        return _product(precise, size)
    return F.interpolate(precise, size=size, mode="bilinear", align_corners=False)


def in_full_precision(logits: Tensor) -> Tensor:
    """Logits as float32; float64 stays."""
    return logits if logits.dtype == torch.float64 else logits.float()


@lru_cache(maxsize=128)
def interpolation(source: int, target: int, dtype: torch.dtype) -> Tensor:
    """The weights (target, source) of linear interpolation along one side, on the CPU: row i makes pixel i.

    Read from torch's own kernel, so that the convention and its rounding are the same.
    """
    # A tensor born in inference mode could never again be part of a graph.
    with torch.inference_mode(False), torch.no_grad():
        units = torch.eye(source, dtype=dtype).view(1, source, 1, source)
        weights = F.interpolate(units, size=(1, target), mode="bilinear", align_corners=False)
        return weights.view(source, target).t().contiguous()


def _product(logits: Tensor, size: tuple[int, int]) -> Tensor:
    # Under autocast the products would round to 8 bits.
    with torch.autocast("cpu", enabled=False):
        columns = logits @ interpolation(logits.shape[-1], size[1], logits.dtype).t()
        return interpolation(logits.shape[-2], size[0], logits.dtype) @ columns
