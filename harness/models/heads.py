"""Heads of our own: what turns one feature map into class logits."""

from __future__ import annotations

from math import gcd

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.config.model import ConvNeXtStyleHead, ConvStackHead, Head, LinearHead, UPerNetStyleHead

POOL_SIZES = (1, 2, 3, 6)
DILATIONS = (1, 2, 4)
GROUPS = 32


def build_head(config: Head, in_channels: int, classes: int) -> tuple[nn.Module, nn.Module]:
    """The decoder part and the classifier of a head.

    Shapes: N in_channels h w -> decoder -> N channels h w -> classifier -> N classes h w.
    """
    decoder, channels = _decoder(config, in_channels)
    return decoder, nn.Conv2d(channels, classes, 1)


def _decoder(config: Head, in_channels: int) -> tuple[nn.Module, int]:
    """The decoder part of a head, and the channels that it gives."""
    match config:
        case LinearHead():
            return nn.Identity(), in_channels
        case ConvNeXtStyleHead():
            return convnext_style_decoder(in_channels, config.channels), config.channels
        case UPerNetStyleHead():
            return upernet_style_decoder(in_channels, config.channels, config.dropout), config.channels
        case ConvStackHead():
            return conv_stack_decoder(in_channels, config.channels), config.channels
    raise TypeError(f"no layers for a head of type {type(config).__name__}")


def convnext_style_decoder(in_channels: int, channels: int) -> nn.Sequential:
    """7x7, depthwise 7x7 and 1x1 convolutions, each with GELU; no norm, no residual (Ignitia, H1)."""
    return nn.Sequential(
        nn.Conv2d(in_channels, channels, 7, padding=3),
        nn.GELU(),
        nn.Conv2d(channels, channels, 7, padding=3, groups=channels),
        nn.GELU(),
        nn.Conv2d(channels, channels, 1),
        nn.GELU(),
    )


def conv_stack_decoder(in_channels: int, channels: int) -> nn.Sequential:
    """Twice 3x3 convolution (with bias), BatchNorm, GELU: what Ignitia's documents describe (D17)."""
    return nn.Sequential(
        nn.Conv2d(in_channels, channels, 3, padding=1),
        nn.BatchNorm2d(channels),
        nn.GELU(),
        nn.Conv2d(channels, channels, 3, padding=1),
        nn.BatchNorm2d(channels),
        nn.GELU(),
    )


def upernet_style_decoder(in_channels: int, channels: int, dropout: float) -> nn.Sequential:
    """Projection, pyramid pooling, three dilated branches, fusion, channel dropout (Ignitia, H2).

    Single level: no feature pyramid, no top-down path. `channels` is a multiple of 32.
    """
    return nn.Sequential(
        _conv_norm_relu(in_channels, channels, 1),
        PyramidPooling(channels),
        DilatedBranches(channels),
        nn.Dropout2d(dropout),
    )


class PyramidPooling(nn.Module):
    """The input beside its averages over 1, 4, 9 and 36 cells, then a 3x3 bottleneck; N C h w -> N C h w."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        branch = channels // len(POOL_SIZES)
        self.branches = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(size), _conv_norm_relu(channels, branch, 1, _branch_groups(branch)))
            for size in POOL_SIZES
        )
        self.bottleneck = _conv_norm_relu(2 * channels, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        pooled = [
            F.interpolate(branch(x), size=x.shape[-2:], mode="bilinear", align_corners=False)
            for branch in self.branches
        ]
        return self.bottleneck(torch.cat([x, *pooled], dim=1))


class DilatedBranches(nn.Module):
    """Three parallel 3x3 convolutions with dilation 1, 2 and 4, fused by a 1x1; N C h w -> N C h w."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(_conv_norm_relu(channels, channels, 3, dilation=d) for d in DILATIONS)
        self.fuse = _conv_norm_relu(len(DILATIONS) * channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.fuse(torch.cat([branch(x) for branch in self.branches], dim=1))


def _conv_norm_relu(
    in_channels: int, out_channels: int, kernel: int, groups: int = GROUPS, dilation: int = 1
) -> nn.Sequential:
    padding = dilation * (kernel // 2)
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, padding=padding, dilation=dilation, bias=False),
        nn.GroupNorm(groups, out_channels),
        nn.ReLU(inplace=True),
    )


def _branch_groups(channels: int) -> int:
    # A quarter of the channels need not be a multiple of 32. On the 1x1 map a group of one channel would
    # normalise a single value to zero, so a group holds two channels or more; 64 channels give 32 groups.
    return gcd(GROUPS, channels // 2)
