"""Class weights from the pixel counts of the training frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from harness.config import did_you_mean
from harness.config.loss import ClassWeights, ExplicitWeights, InverseFrequency, LogFrequency, NoClassWeights
from harness.errors import ConfigError, DataError


def class_weights(config: ClassWeights, counts: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Weigh each class by the scheme of `config`.

    `counts` (C,): labelled pixels of each class over the training frames, unaugmented; only the frequency
    schemes read them. `names` (C,): the classes in the same order.
    Returns float64 (C,), each weight 0 or above, at least one above 0.
    Raises DataError where the counts do not fit the classes, are negative or not finite, or a frequency
    scheme finds no labelled pixel; ConfigError where explicit weights do not name every class exactly, or
    are all 0.
    """
    counts = np.asarray(counts, dtype=np.float64)
    _check_counts(counts, names)
    match config:
        case NoClassWeights():
            return np.ones(len(names))
        case InverseFrequency():
            return _inverse_frequency(_some_pixels(counts, config.kind), config.maximum)
        case LogFrequency():
            return _log_frequency(_some_pixels(counts, config.kind), config.offset)
        case ExplicitWeights():
            return _explicit(config.values, names)
    raise TypeError(f"no formula for class weights of type {type(config).__name__}")


def _inverse_frequency(counts: np.ndarray, maximum: float) -> np.ndarray:
    """`maximum` * n_min / n_c, with n_min the smallest count above 0; a class that never occurs weighs 0.

    Ignitia writes it N / (10 n_c + 1e-6), rescaled to a maximum of 5: the same number until a count is 0,
    when that class takes the maximum and drives every other weight to about 0. A class that is never the
    truth has no cross-entropy to weigh, so the 0 takes nothing away there; a Dice term leaves the class out
    of its mean.
    """
    occurs = counts > 0
    return np.divide(maximum * counts[occurs].min(), counts, out=np.zeros_like(counts), where=occurs)


def _log_frequency(counts: np.ndarray, offset: float) -> np.ndarray:
    """1 / ln(offset + share), divided by the mean over classes (ENet, arXiv 1606.02147; DesertMind).

    Kept as published for a class that never occurs: the offset bounds its weight, the largest of all, and
    through the mean it makes the others smaller, in unchanged proportion to each other.
    """
    weights = 1 / np.log(offset + counts / counts.sum())
    return weights / weights.mean()


def _explicit(values: Mapping[str, float], names: Sequence[str]) -> np.ndarray:
    for name in values:
        if name not in names:
            raise ConfigError(f"class_weights.values names '{name}', which is not a class{did_you_mean(name, names)}")
    missing = [name for name in names if name not in values]
    if missing:
        raise ConfigError(f"class_weights.values has no weight for {', '.join(missing)}; name every class")
    if not any(values.values()):
        raise ConfigError("class_weights.values are all 0; give at least one class a weight above 0")
    return np.array([values[name] for name in names], dtype=np.float64)


def _check_counts(counts: np.ndarray, names: Sequence[str]) -> None:
    if counts.shape != (len(names),):
        raise DataError(
            f"pixel counts of shape {counts.shape} for {len(names)} classes; give one count per class, "
            f"shape ({len(names)},)"
        )
    for name, count in zip(names, counts, strict=True):
        if not (np.isfinite(count) and count >= 0):
            raise DataError(f"pixel count {count:g} of class {name}; counts are pixels, 0 or more")


def _some_pixels(counts: np.ndarray, kind: str) -> np.ndarray:
    if not counts.any():
        raise DataError(
            f"the training frames hold no pixel of any of the {len(counts)} classes, and class weights of "
            f"kind {kind} divide by the counts; check that the taxonomy lists the masks' ids, or use none"
        )
    return counts
