"""The loss: a weighted sum of terms. A term with weight 0 is not computed.

Where a published system's formula differs from the textbook one, both are here under different names.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from harness.config.base import Section


class NoClassWeights(Section):
    """Every class weighs 1."""

    kind: Literal["none"] = "none"


class InverseFrequency(Section):
    """Inversely proportional to the class's pixel count, the rarest class at `maximum` (Ignitia)."""

    kind: Literal["inverse_frequency"] = "inverse_frequency"
    maximum: float = Field(
        5.0, gt=0, le=1000, description="weight of the rarest class; cancels in a term that divides by the weights"
    )


class LogFrequency(Section):
    """1 / ln(offset + share), divided by the mean over classes (DesertMind; ENet, arXiv 1606.02147)."""

    kind: Literal["log_frequency"] = "log_frequency"
    offset: float = Field(1.02, gt=1, le=10, description="added to the share inside the logarithm")


class ExplicitWeights(Section):
    """Weights by class name; every class of the taxonomy must be named."""

    kind: Literal["explicit"] = "explicit"
    values: dict[str, Annotated[float, Field(ge=0)]] = Field(description="class name to weight")


ClassWeights = Annotated[
    NoClassWeights | InverseFrequency | LogFrequency | ExplicitWeights, Field(discriminator="kind")
]

_WEIGHT = Field(0.0, ge=0, le=100, description="factor of this term in the sum; 0: not computed")
_CLASS_WEIGHTS = Field(NoClassWeights(), description="weight of each class in this term")


class Term(Section):
    """What every term has."""

    weight: float = _WEIGHT
    class_weights: ClassWeights = _CLASS_WEIGHTS


class CrossEntropy(Term):
    """Cross-entropy; with class weights the mean divides by the sum of the weights, as torch does."""

    weight: float = Field(1.0, ge=0, le=100, description="factor of this term in the sum; 0: not computed")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="probability spread over all classes, 0-1")


class Focal(Term):
    """(1 - p)^gamma times cross-entropy, the class weight outside (arXiv 1708.02002)."""

    gamma: float = Field(2.0, ge=0, le=10, description="focusing exponent")


class Dice(Term):
    """1 - mean soft Dice over the classes that the batch's truth holds."""

    smooth: float = Field(1.0, ge=0, le=1e6, description="pixels added above and below the fraction")


class CrossEntropyPlainMean(Term):
    """Weighted cross-entropy divided by the number of pixels, not by the sum of weights (Ignitia)."""


class FocalWeightInside(Term):
    """Focal with p taken from the weighted cross-entropy, p^w, and a plain mean (Ignitia)."""

    gamma: float = Field(2.0, ge=0, le=10, description="focusing exponent")


class DiceAllClasses(Term):
    """1 - mean soft Dice over all classes, absent ones too (Ignitia: smooth 1; DesertMind: 1e-6)."""

    smooth: float = Field(1.0, gt=0, le=1e6, description="pixels added above and below the fraction")


class DiceAbsentPerfect(Term):
    """Soft Dice in which classes absent from the batch count as perfect (smp, CodeCrunch)."""


class Boundary(Term):
    """(1 + b) times weighted cross-entropy, plain mean; b is the blurred class boundary, 0-1 (Ignitia phase 6)."""

    sigma: float = Field(2.0, gt=0, le=50, description="deviation of the blur of the boundary, pixels")


class Ohem(Term):
    """Cross-entropy over the hard pixels only (online hard example mining, arXiv 1604.03540)."""

    threshold: float = Field(0.7, gt=0, le=1, description="pixels whose true class has less probability are hard")
    keep: float = Field(0.1, gt=0, le=1, description="at least this share of the batch's pixels is kept, the hardest")


class LossConfig(Section):
    """The terms of the sum; at least one weighs more than 0."""

    cross_entropy: CrossEntropy = Field(CrossEntropy(), description="textbook cross-entropy")
    focal: Focal = Field(Focal(), description="textbook focal loss")
    dice: Dice = Field(Dice(), description="soft Dice over the classes present")
    cross_entropy_plain_mean: CrossEntropyPlainMean = Field(
        CrossEntropyPlainMean(), description="Ignitia's reduction of weighted cross-entropy"
    )
    focal_weight_inside: FocalWeightInside = Field(FocalWeightInside(), description="Ignitia's focal loss")
    dice_all_classes: DiceAllClasses = Field(DiceAllClasses(), description="Ignitia's and DesertMind's Dice")
    dice_absent_perfect: DiceAbsentPerfect = Field(DiceAbsentPerfect(), description="CodeCrunch's Dice")
    boundary: Boundary = Field(Boundary(), description="Ignitia's boundary term")
    ohem: Ohem = Field(Ohem(), description="cross-entropy over hard pixels")

    @model_validator(mode="after")
    def _something_to_minimise(self) -> LossConfig:
        if not self.active_terms():
            raise ValueError("every term has weight 0; give at least one term a weight above 0")
        return self

    def active_terms(self) -> dict[str, Term]:
        """The terms that weigh more than 0, by name."""
        terms = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: term for name, term in terms.items() if term.weight > 0}
