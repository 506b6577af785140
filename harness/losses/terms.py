"""The terms of a loss, each a number from one log-softmax and the truth.

Every term weighs pixels or classes by `class_weights` (C,), leaves ignored pixels out, and is 0, with a graph
and zero gradients, where nothing is left to average.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from operator import mul
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from harness.config import IGNORE
from harness.losses.boundary import boundary_map
from harness.losses.resize import in_full_precision

PixelFunction = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Overlap:
    """Soft counts over all valid pixels of a batch, each (C,), in pixels."""

    intersection: Tensor  #: probability of the true class, summed where each class is the truth
    predicted: Tensor  #: probability of each class, summed
    true: Tensor  #: pixels of which each class is the truth

    def dice(self, smooth: float) -> Tensor:
        """(2 I + smooth) / (P + T + smooth) of each class (C,), 0-1; 0 where the fraction is 0 / 0."""
        return _per(2 * self.intersection + smooth, self.predicted + self.true + smooth)


class Sums(NamedTuple):
    """Which sums over pixels a loss reads; the others are 0."""

    dice: bool
    log_probability: bool


ALL_SUMS = Sums(dice=True, log_probability=True)


@dataclass(frozen=True)
class Pixels:
    """What the terms share, computed once for a batch; sums are over all valid pixels."""

    cross_entropy: Tensor  #: -ln p of the true class (N H W), in nats; where ignored, a number to be weighed by 0
    intersection: Tensor  #: probability of the true class, summed where each class is the truth (C,)
    probability: Tensor  #: probability of each class, summed (C,)
    log_probability: Tensor  #: log-probability of each class, summed (C,)
    truth: Tensor  #: class of each pixel (N H W), int64; 0 where ignored
    valid: Tensor  #: whether a pixel counts (N H W), bool

    @classmethod
    def from_logits(cls, logits: Tensor, truth: Tensor, sums: Sums = ALL_SUMS) -> Pixels:
        """Take logits (N C H W) of any float type and truth (N H W), int64, 0 to C - 1 or IGNORE.

        Everything is float32, or float64 where the logits are.
        """
        valid = truth != IGNORE
        truth = torch.where(valid, truth, 0)
        log_p, inside = in_full_precision(logits).log_softmax(dim=1), valid.unsqueeze(1)
        cross_entropy = -log_p.gather(1, truth.unsqueeze(1)).squeeze(1)
        intersection = probability = log_probability = log_p.new_zeros(log_p.shape[1])
        if sums.dice:
            intersection = _sum_by_truth((-cross_entropy).exp() * valid, truth, log_p.shape[1])
            probability = (log_p.exp() * inside).sum((0, 2, 3))
        if sums.log_probability:
            log_probability = (log_p * inside).sum((0, 2, 3))
        return cls(cross_entropy, intersection, probability, log_probability, truth, valid)

    @cached_property
    def count(self) -> Tensor:
        """How many pixels count, as a float scalar."""
        return self.valid.sum().to(self.cross_entropy.dtype)

    @cached_property
    def overlap(self) -> Overlap:
        """The soft counts of Dice over the whole batch."""
        inside = self.valid.to(self.cross_entropy.dtype)
        true = _sum_by_truth(inside, self.truth, len(self.probability))
        return Overlap(self.intersection, self.probability, true)

    def weights(self, class_weights: Tensor) -> Tensor:
        """The true class's weight at each pixel (N H W); 0 where ignored."""
        return _weights(class_weights, self.truth, self.valid)

    def sum(self, class_weights: Tensor, function: PixelFunction) -> tuple[Tensor, Tensor]:
        """Add up `function(cross-entropy, weight of the true class)` over the pixels; and the weights.

        The weight is 0 where ignored, and the function must be 0 there. The sum has no second derivative.
        """
        return _Sum.apply(self.cross_entropy, self.truth, self.valid, class_weights, function)


class _Sum(torch.autograd.Function):
    """`Pixels.sum`. Each image's slopes are made beside its sum, while its maps are in a CPU's cache."""

    @staticmethod
    def forward(  # noqa: D102
        ctx: Any, cross_entropy: Tensor, truth: Tensor, valid: Tensor, class_weights: Tensor, function: PixelFunction
    ) -> tuple[Tensor, Tensor]:
        size = 1 if cross_entropy.device.type == "cpu" else len(cross_entropy)
        parts, slopes = [], []
        for losses, *labels in zip(*(maps.split(size) for maps in (cross_entropy, truth, valid)), strict=True):
            weights = _weights(class_weights, *labels)
            with torch.set_grad_enabled(ctx.needs_input_grad[0]):
                losses = losses.detach().requires_grad_(ctx.needs_input_grad[0])
                total = function(losses, weights).sum()
            if ctx.needs_input_grad[0]:
                slopes += torch.autograd.grad(total, losses)
            parts.append(torch.stack([total.detach(), weights.sum()]))
        ctx.slopes = slopes
        total, weight = torch.stack(parts).sum(0)
        ctx.mark_non_differentiable(weight)
        return total, weight

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_total: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:  # noqa: D102
        return torch.cat(ctx.slopes).mul_(of_total), None, None, None, None


def cross_entropy(pixels: Pixels, class_weights: Tensor, label_smoothing: float) -> Tensor:
    """Sum of w_y * ce over the sum of w_y, as `torch.nn.functional.cross_entropy` takes the mean.

    `label_smoothing` e, 0-1, mixes in e / C times the sum over classes of w_c * -ln p_c (arXiv 1512.00567).
    """
    total, weight = pixels.sum(class_weights, mul)
    if label_smoothing > 0:
        spread = -(class_weights * pixels.log_probability).mean()
        total = (1 - label_smoothing) * total + label_smoothing * spread
    return _per(total, weight)


def focal(pixels: Pixels, class_weights: Tensor, gamma: float) -> Tensor:
    """Sum of w_y * (1 - p)^gamma * ce over the sum of w_y (arXiv 1708.02002, alpha = w).

    The paper divides by the number of positives; this divides by the sum of weights, so that gamma 0 is the
    weighted cross-entropy exactly.
    """
    return _per(*pixels.sum(class_weights, lambda loss, weight: weight * _focal(loss, gamma)))


def dice(pixels: Pixels, class_weights: Tensor, smooth: float) -> Tensor:
    """1 - soft Dice, averaged by class weight over the classes that the batch's truth holds."""
    present = (pixels.overlap.true > 0).to(class_weights.dtype)
    return _weighted_mean(1 - pixels.overlap.dice(smooth), class_weights * present)


def cross_entropy_plain_mean(pixels: Pixels, class_weights: Tensor) -> Tensor:
    """Sum of w_y * ce over the number of pixels (Ignitia's reduction).

    It is `cross_entropy` times the mean weight of the batch's pixels, which is 0.04 with Ignitia's weights.
    """
    return _per(pixels.sum(class_weights, mul)[0], pixels.count)


def focal_weight_inside(pixels: Pixels, class_weights: Tensor, gamma: float) -> Tensor:
    """Plain mean of (1 - exp(-l))^gamma * l, with l = w_y * ce (Ignitia, phases 3 to 6).

    The weight sits inside the modulating factor, which sees p^w in place of p: at p = 0.5 and gamma 2 a class
    of weight 0.01 counts 5,000 times less than with the weight outside, one of weight 5 3.75 times more.
    """
    return _per(pixels.sum(class_weights, lambda loss, weight: _focal(weight * loss, gamma))[0], pixels.count)


def dice_all_classes(pixels: Pixels, class_weights: Tensor, smooth: float) -> Tensor:
    """1 - soft Dice, averaged by class weight over all classes (Ignitia: smooth 1; DesertMind: 1e-6).

    A class absent from the batch scores smooth / (P + smooth), which is close to 0 unless its probabilities P
    sum to less than `smooth` pixels: each absent class lifts the loss by up to its share of the weights.
    """
    return _weighted_mean(1 - pixels.overlap.dice(smooth), class_weights)


def dice_absent_perfect(pixels: Pixels, class_weights: Tensor) -> Tensor:
    """1 - soft Dice, averaged by class weight over all classes, an absent class counting as perfect.

    Equals `segmentation_models_pytorch.losses.DiceLoss("multiclass", ignore_index=255)` (CodeCrunch): false
    positives of an absent class cost only what they take from the classes present.
    """
    present = (pixels.overlap.true > 0).to(class_weights.dtype)
    return _weighted_mean((1 - pixels.overlap.dice(0.0)) * present, class_weights)


def boundary(pixels: Pixels, class_weights: Tensor, sigma: float) -> Tensor:
    """Sum of (1 + b) * w_y * ce over the number of pixels, b the boundary map (Ignitia, phase 6).

    It is `cross_entropy_plain_mean` plus a bonus near boundaries. b reaches 1 at one pixel of an image and is
    about 0.03 on average in a large frame of two classes, so the bonus is a small part of the term.
    """
    labels = torch.where(pixels.valid, pixels.truth, IGNORE)
    lifted = 1 + boundary_map(labels, sigma, pixels.cross_entropy.dtype)
    return _per((lifted * pixels.weights(class_weights) * pixels.cross_entropy).sum(), pixels.count)


def ohem(pixels: Pixels, class_weights: Tensor, threshold: float, keep: float) -> Tensor:
    """`cross_entropy` over the hard pixels of the batch only (online hard example mining, arXiv 1604.03540).

    Kept are the pixels whose true class has a probability below `threshold`; where they are less than the
    share `keep` of the pixels that count, the ones with the largest cross-entropy up to that share, rounded
    up to a pixel. Class weights do not choose; they weigh what is kept, and divide.
    """
    weights = pixels.weights(class_weights) * _hardest(pixels, threshold, keep)
    return _per((weights * pixels.cross_entropy).sum(), weights.sum())


def _hardest(pixels: Pixels, threshold: float, keep: float) -> Tensor:
    """Whether `ohem` keeps a pixel (N H W), bool."""
    hardness = torch.where(pixels.valid, pixels.cross_entropy.detach(), -torch.inf).flatten()
    hard = (hardness > -math.log(threshold)).sum()
    # Ranks, not a comparison with the last value kept: many certain pixels have a cross-entropy of exactly 0,
    # and all of them would come in together. The number kept stays a tensor: the host need not wait for it.
    order = hardness.argsort(descending=True, stable=True)
    first = torch.arange(len(order), device=order.device) < torch.maximum(hard, keep * pixels.count)
    return torch.zeros_like(first).scatter(0, order, first).view_as(pixels.valid)


def _focal(loss: Tensor, gamma: float) -> Tensor:
    # A confident pixel has loss 0 exactly: with gamma < 1 the slope is infinite there, and inf * 0 is nan.
    missing = (-torch.expm1(-loss)).clamp_min(torch.finfo(loss.dtype).tiny)
    return missing**gamma * loss


def _weights(class_weights: Tensor, truth: Tensor, valid: Tensor) -> Tensor:
    # Thrice as fast as an index on a CPU.
    return class_weights.index_select(0, truth.flatten()).view_as(truth).mul_(valid)


def _sum_by_truth(values: Tensor, truth: Tensor, classes: int) -> Tensor:
    # Per image row first: beside one running float32 sum over a batch, each pixel would lose its digits.
    rows = values.new_zeros(*values.shape[:2], classes)
    return rows.scatter_add(2, truth, values).sum((0, 1))


def _weighted_mean(losses: Tensor, weights: Tensor) -> Tensor:
    return _per((weights * losses).sum(), weights.sum())


def _per(total: Tensor, amount: Tensor) -> Tensor:
    # No branch on the tensor: the host would have to wait for the device.
    some = amount > 0
    return torch.where(some, total, 0.0) / torch.where(some, amount, 1.0)
