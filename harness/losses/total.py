"""The loss: a weighted sum of terms over one log-softmax."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from harness.config import IGNORE
from harness.config import loss as sections
from harness.errors import DataError
from harness.losses import terms
from harness.losses.class_weights import class_weights
from harness.losses.resize import in_full_precision, resize_logits
from harness.losses.strips import SoftmaxInStrips
from harness.losses.terms import Pixels, Sums

#: the terms that read the sums of probabilities
DICE = (sections.Dice, sections.DiceAllClasses, sections.DiceAbsentPerfect)


def build_loss(config: sections.LossConfig, counts: np.ndarray, names: Sequence[str]) -> Loss:
    """Build the loss of `config` for the classes `names` (C,), which hold `counts` (C,) training pixels.

    Raises DataError or ConfigError as `class_weights` does, for the terms that weigh more than 0.
    """
    active = config.active_terms()
    weights = {name: class_weights(term.class_weights, counts, names) for name, term in active.items()}
    return Loss(active, weights)


class Loss(nn.Module):
    """The sum of each active term times its weight; class weights are buffers, so `to(device)` moves them."""

    def __init__(self, active: dict[str, sections.Term], weights: dict[str, np.ndarray]) -> None:
        """Take the active terms and, for each of them, its class weights (C,), by the term's name."""
        super().__init__()
        self.active = active
        self.classes = len(next(iter(weights.values())))
        for name, values in weights.items():
            # Not part of a checkpoint: configuration and counts give them again.
            buffer = torch.as_tensor(values, dtype=torch.float32)
            self.register_buffer(_buffer_name(name), buffer, persistent=False)

    def forward(self, logits: Tensor, truth: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Score logits (N C h w) of any size and float type against truth (N H W), int64, 0 to C - 1 or IGNORE.

        The logits are resized to the truth's size as `resize_logits` does. Everything is computed in float32, in
        float64 for float64 logits. Returns the weighted sum, and each active term's own value, unweighted and
        detached, by its name; scalars on the logits' device. A batch without a valid pixel scores 0, with zero
        gradients. Whether the truth's values are classes is left to the reader of the masks: asking here would make
        the host wait for the device.
        Raises DataError where shapes or types do not fit.

        On a CPU, resizing and softmax are one step in strips of rows (`SoftmaxInStrips`), which takes a third of the
        time of torch's kernels one after the other. On any other device they are those kernels: each fills the
        device, where hundreds of small ones would wait for the host. The active terms do not change the way.
        """
        _check_batch(logits, truth, self.classes)
        pixels = _pixels(logits, truth, self._sums())
        values = {name: self._value(name, pixels) for name in self.active}
        total = torch.stack([self.active[name].weight * value for name, value in values.items()]).sum()
        return total, {name: value.detach() for name, value in values.items()}

    def per_image(self, logits: Tensor, truth: Tensor) -> Tensor:
        """Score each image as a batch of its own (N,): Dice and weighted means depend on which images share one.

        Takes what `forward` takes, and raises what it raises.
        """
        _check_batch(logits, truth, self.classes)
        pairs = zip(logits.split(1), truth.split(1), strict=True)
        return torch.stack([self(*pair)[0] for pair in pairs])

    def _value(self, name: str, pixels: Pixels) -> Tensor:
        weights = self.get_buffer(_buffer_name(name)).to(pixels.cross_entropy.dtype)
        return term_value(self.active[name], pixels, weights)

    def _sums(self) -> Sums:
        """What the active terms ask for beside the cross-entropy of each pixel."""
        active = self.active.values()
        smoothed = any(isinstance(term, sections.CrossEntropy) and term.label_smoothing > 0 for term in active)
        return Sums(dice=any(isinstance(term, DICE) for term in active), log_probability=smoothed)


def _pixels(logits: Tensor, truth: Tensor, sums: Sums) -> Pixels:
    logits = in_full_precision(logits)
    if logits.device.type != "cpu":
        return Pixels.from_logits(resize_logits(logits, truth.shape[1:]), truth, sums)
    valid = truth != IGNORE
    labels = torch.where(valid, truth, 0)
    return Pixels(*SoftmaxInStrips.apply(logits, labels, valid, sums), labels, valid)


def term_value(term: sections.Term, pixels: Pixels, weights: Tensor) -> Tensor:
    """Score one term alone, without its factor in the sum; `weights` (C,): its class weights."""
    match term:
        case sections.CrossEntropy():
            return terms.cross_entropy(pixels, weights, term.label_smoothing)
        case sections.Focal():
            return terms.focal(pixels, weights, term.gamma)
        case sections.Dice():
            return terms.dice(pixels, weights, term.smooth)
        case sections.CrossEntropyPlainMean():
            return terms.cross_entropy_plain_mean(pixels, weights)
        case sections.FocalWeightInside():
            return terms.focal_weight_inside(pixels, weights, term.gamma)
        case sections.DiceAllClasses():
            return terms.dice_all_classes(pixels, weights, term.smooth)
        case sections.DiceAbsentPerfect():
            return terms.dice_absent_perfect(pixels, weights)
        case sections.Boundary():
            return terms.boundary(pixels, weights, term.sigma)
        case sections.Ohem():
            return terms.ohem(pixels, weights, term.threshold, term.keep)
    raise TypeError(f"no formula for a loss term of type {type(term).__name__}")


def _buffer_name(term: str) -> str:
    return f"{term}_class_weights"


def _check_batch(logits: Tensor, truth: Tensor, classes: int) -> None:
    if logits.ndim != 4 or logits.shape[1] != classes or not logits.is_floating_point():
        raise DataError(
            f"logits of shape {tuple(logits.shape)} and type {logits.dtype}: the loss was built for "
            f"{classes} classes; give floating-point logits (N {classes} h w)"
        )
    if truth.ndim != 3 or len(truth) != len(logits) or truth.dtype != torch.int64:
        raise DataError(
            f"truth of shape {tuple(truth.shape)} and type {truth.dtype} for logits of shape "
            f"{tuple(logits.shape)}; give int64 class indices of shape ({len(logits)} H W)"
        )
