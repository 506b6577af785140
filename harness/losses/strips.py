"""One softmax for all terms, on a CPU: resized, summed up and differentiated in strips that fit the cache.

Every term is a function of the cross-entropy of each pixel and of a few sums over pixels for each class (`Pixels`).
So the full-size probabilities, C numbers a pixel, need not be held: a strip of rows of them is made, summed up and,
for the gradient, made again.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from harness.losses.resize import interpolation
from harness.losses.terms import Sums

#: numbers in a strip: half a megabyte of float32
STRIP = 2**17


class SoftmaxInStrips(torch.autograd.Function):
    """The softmax, as `Pixels` holds it, with its gradient written out.

    Takes logits (N C h w) of any size, float32 or float64, the true classes (N H W), int64, 0 where ignored, whether
    pixels count (N H W), bool, and the sums to make. Gives the cross-entropy (N H W), 0 where ignored, and the sums
    of the true class's probability, of probability and of log-probability, each (C,).

    Logits of another size than the truth's are resized as `resize_logits` does. With z the logits at full size, p
    their softmax and y the truth:

        d ln p_k / d z_c = [c = k] - p_c    d p_k / d z_c = p_k ([c = k] - p_c)
    """

    @staticmethod
    @torch.autocast("cpu", enabled=False)  # under autocast the products would round to 8 bits
    def forward(ctx: Any, logits: Tensor, truth: Tensor, valid: Tensor, sums: Sums) -> tuple[Tensor, ...]:  # noqa: D102
        resizing = _resizing(logits.shape[1:], truth.shape[1:], logits.dtype)
        cross_entropy, log_total = logits.new_empty(truth.shape), logits.new_empty(truth.shape)
        of_strips = [logits.new_zeros(3, logits.shape[1])]
        for n, image in enumerate(logits):
            wide = resizing.columns(image)
            for rows in resizing.strips:
                here = (n, slice(rows.start, rows.stop), None)
                z = resizing.rows(wide, rows)
                cross_entropy[here], log_total[here], summed = _summed_up(z, truth[here], valid[here], sums)
                of_strips.append(summed)
        ctx.save_for_backward(logits, truth, valid, log_total)
        ctx.sums = sums
        return cross_entropy, *torch.stack(of_strips).sum(0)

    @staticmethod
    @once_differentiable
    @torch.autocast("cpu", enabled=False)
    def backward(ctx: Any, of_entropy: Tensor, *of_sums: Tensor) -> tuple[Tensor | None, ...]:  # noqa: D102
        logits, truth, valid, log_total = ctx.saved_tensors
        resizing = _resizing(logits.shape[1:], truth.shape[1:], logits.dtype)
        gradient = torch.empty_like(logits)
        for n, image in enumerate(logits):
            wide = resizing.columns(image)
            of_wide = torch.zeros_like(wide)
            for rows in resizing.strips:
                here = (n, slice(rows.start, rows.stop), None)
                # infinite where ignored, so that every probability is 0 there
                p = resizing.rows(wide, rows).sub_(log_total[here]).exp_()
                slopes = Slopes(of_entropy[here], *of_sums)
                resizing.add_gradient_of_rows(_gradient(p, truth[here], valid[here], slopes, ctx.sums), rows, of_wide)
            gradient[n] = resizing.gradient_of_columns(of_wide)
        return gradient, None, None, None


class Slopes(NamedTuple):
    """How the loss changes with what the softmax gave, for a strip of R rows."""

    cross_entropy: Tensor  #: (R 1 W)
    intersection: Tensor  #: (C,)
    probability: Tensor  #: (C,)
    log_probability: Tensor  #: (C,)


def _summed_up(z: Tensor, truth: Tensor, valid: Tensor, sums: Sums) -> tuple[Tensor, Tensor, Tensor]:
    """Cross-entropy and log of the softmax's denominator (R 1 W), and the sums (3 C); overwrites z (R C W)."""
    highest = z.amax(1, keepdim=True)
    true = z.sub_(highest).gather(1, truth)
    intersection = probability = log_probability = z.new_zeros(z.shape[1])
    if sums.log_probability:
        log_probability = (z * valid).sum((0, 2))
    total = z.exp_().sum(1, keepdim=True)
    log = total.log()
    if sums.log_probability:
        log_probability = log_probability - (log * valid).sum()
    if sums.dice:
        share = valid / total
        probability = z.mul_(share).sum((0, 2))
        by_row = z.new_zeros(z.shape[:2])
        intersection = by_row.scatter_add_(1, truth.squeeze(1), (true.exp() * share).squeeze(1)).sum(0)
    # times, not where: a logit that is not finite shows in the loss wherever it is
    log_total = torch.where(valid, highest + log, torch.inf)
    return (log - true) * valid, log_total, torch.stack([intersection, probability, log_probability])


def _gradient(p: Tensor, truth: Tensor, valid: Tensor, slopes: Slopes, sums: Sums) -> Tensor:
    """The gradient for the strip's logits (R C W); overwrites their probabilities p, which are 0 where ignored."""
    of_true = slopes.cross_entropy * valid
    common = of_true
    if sums.dice:
        of_overlap = slopes.intersection.view(-1, 1).expand_as(p).gather(1, truth) * p.gather(1, truth)
        of_true = of_true - of_overlap
        common = of_true - torch.matmul(slopes.probability, p).unsqueeze(1)
    if sums.log_probability:
        common = common - valid * slopes.log_probability.sum()
    p.mul_(common + slopes.probability.view(-1, 1) if sums.dice else common)
    if sums.log_probability:
        p.add_(valid * slopes.log_probability.view(-1, 1))
    return p.scatter_add_(1, truth, -of_true)


class Rows(NamedTuple):
    """A strip: rows `start` to `stop` of the full size, made of rows `low` to `high` of the logits."""

    start: int
    stop: int
    low: int
    high: int


class Resizing(NamedTuple):
    """Bilinear resizing of one image, and its gradient, as products: first the columns, then strips of rows.

    The classes lie between rows and columns, so that each of the products is a single one for all classes.
    """

    row_weights: Tensor | None  #: (H h); none: the height stays
    column_weights: Tensor | None  #: (W w); none: the width stays
    strips: tuple[Rows, ...]

    def columns(self, image: Tensor) -> Tensor:
        """(C h w) to (h C W)."""
        image = image.transpose(0, 1)
        return (image if self.column_weights is None else image @ self.column_weights.t()).contiguous()

    def rows(self, wide: Tensor, rows: Rows) -> Tensor:
        """(h C W) to a strip (R C W) in memory of its own."""
        if self.row_weights is None:
            return wide[rows.start : rows.stop].clone()
        weights = self.row_weights[rows.start : rows.stop, rows.low : rows.high]
        return (weights @ wide[rows.low : rows.high].flatten(1)).view(-1, *wide.shape[1:])

    def add_gradient_of_rows(self, gradient: Tensor, rows: Rows, of_wide: Tensor) -> None:
        """Carry a strip's gradient (R C W) back to (h C W), on top of what is there."""
        if self.row_weights is None:
            of_wide[rows.start : rows.stop] = gradient
            return
        weights = self.row_weights[rows.start : rows.stop, rows.low : rows.high]
        of_wide[rows.low : rows.high].flatten(1).addmm_(weights.t(), gradient.flatten(1))

    def gradient_of_columns(self, of_wide: Tensor) -> Tensor:
        """(h C W) to (C h w)."""
        gradient = of_wide if self.column_weights is None else of_wide @ self.column_weights
        return gradient.transpose(0, 1)


@lru_cache(maxsize=32)
def _resizing(source: torch.Size, target: torch.Size, dtype: torch.dtype) -> Resizing:
    """How logits (C h w) come to the size (H W)."""
    classes, height, width = source
    row_weights = None if height == target[0] else interpolation(height, target[0], dtype)
    column_weights = None if width == target[1] else interpolation(width, target[1], dtype)
    step = max(1, STRIP // (classes * target[1]))
    starts = range(0, target[0], step)
    strips = tuple(_strip(start, min(start + step, target[0]), row_weights) for start in starts)
    return Resizing(row_weights, column_weights, strips)


def _strip(start: int, stop: int, row_weights: Tensor | None) -> Rows:
    if row_weights is None:
        return Rows(start, stop, start, stop)
    used = row_weights[start:stop].any(0).nonzero()
    return Rows(start, stop, int(used[0]), int(used[-1]) + 1)
