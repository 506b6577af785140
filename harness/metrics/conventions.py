"""What one set of predictions scores under each published convention, from the same per-image matrices.

On twenty real frames one fixed set of predictions scores 0.265 to 0.488 as the "mIoU" of different teams: a
number without its convention cannot be compared. All are computed at the raster of the matrices. The 1e-6
that CodeCrunch adds to a union is left out: on whole frames it moves no printed digit.
A mean over images leaves out an image without a labelled pixel: it has no score.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.errors import DataError
from harness.metrics import scores
from harness.metrics.confusion import check_matrices

Matrices = NDArray[np.int64]

CODECRUNCH_IGNORED = ("Ground Clutter", "Flowers", "Logs")
IGNITIA_SMOOTHING = 1e-6


@dataclass(frozen=True)
class Convention:
    """One scoring rule: its name, its definition in a sentence, and the function that computes it."""

    name: str
    definition: str
    rule: Callable[[Matrices, Sequence[str]], float]

    def __call__(self, matrices: Matrices, names: Sequence[str]) -> float:
        """Score the matrices (N, C, C+1) of images in file order, with the C class names; in [0, 1] or nan.

        Raises DataError where the shape is another or the names are not C.
        """
        check_matrices(matrices)
        if len(names) != matrices.shape[1]:
            raise DataError(f"{len(names)} class names for matrices of {matrices.shape[1]} classes; give one per class")
        return float(self.rule(matrices, names))


def score_by_convention(matrices: Matrices, names: Sequence[str]) -> dict[str, float]:
    """Score the matrices (N, C, C+1) under every convention, by name; raises DataError as Convention does."""
    return {name: convention(matrices, names) for name, convention in CONVENTIONS.items()}


def _on_dataset(score: Callable[[scores.Counts], float]) -> Callable[[Matrices, Sequence[str]], float]:
    """Make a rule of a score of the counts summed over all images."""
    return lambda matrices, names: score(scores.dataset_counts(matrices))


def _mean_defined(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over the last axis of the values that are defined (not nan)."""
    return scores.mean_over(values, ~np.isnan(values))


def _union_mean(c: scores.Counts) -> NDArray[np.float64]:
    """Mean IoU over the classes with a non-empty union."""
    return scores.mean_over(scores.iou(c), c.union > 0)


def _mean_with_empty_as(value: float) -> Callable[[scores.Counts], float]:
    """Mean IoU over all classes, with the given value for an empty union."""
    return lambda c: np.where(c.union > 0, scores.iou(c), value).mean()


def _batches_of_two(matrices: Matrices) -> Matrices:
    """Pool images 0+1, 2+3, ...; an odd last image stays by itself. (N, C, C+1) to (ceil(N/2), C, C+1)."""
    return np.add.reduceat(matrices, np.arange(0, len(matrices), 2), axis=0)


def _per_image_union(matrices: Matrices, names: Sequence[str]) -> float:
    return _mean_defined(_union_mean(scores.counts(matrices)))


def _per_image_truth(matrices: Matrices, names: Sequence[str]) -> float:
    return _mean_defined(scores.miou(scores.counts(matrices)))


def _per_image_positive(matrices: Matrices, names: Sequence[str]) -> float:
    c = scores.counts(matrices)
    iou = scores.iou(c)
    hit = iou > 0
    # An image with labels and no hit at all has scored 0; dropping it would reward the worst failure.
    means = np.where(hit.any(axis=-1), scores.mean_over(iou, hit), 0.0)
    return scores.mean_over(means, c.truth.any(axis=-1))


def _per_class_union(matrices: Matrices, names: Sequence[str]) -> float:
    per_class = _mean_defined(scores.iou(scores.counts(matrices)).T)
    return _mean_defined(per_class)


def _batch2_union(matrices: Matrices, names: Sequence[str]) -> float:
    return _per_image_union(_batches_of_two(matrices), names)


def _batch2_per_class(matrices: Matrices, names: Sequence[str]) -> float:
    return _per_class_union(_batches_of_two(matrices), names)


def _batch2_dice(matrices: Matrices, names: Sequence[str]) -> float:
    c = scores.counts(_batches_of_two(matrices))
    pixels = c.truth + c.predicted
    return ((2 * c.intersection + IGNITIA_SMOOTHING) / (pixels + IGNITIA_SMOOTHING)).mean()


def _codecrunch7(matrices: Matrices, names: Sequence[str]) -> float:
    if not set(CODECRUNCH_IGNORED) <= set(names):
        return np.nan
    kept = [i for i, name in enumerate(names) if name not in CODECRUNCH_IGNORED]
    rows = matrices.sum(axis=0)[kept]
    none = rows.sum(axis=1) - rows[:, kept].sum(axis=1)
    return _union_mean(scores.counts(np.column_stack([rows[:, kept], none])))


_TABLE = (
    Convention(
        "miou",
        "Ours: IoU over the dataset, mean over the classes present in the ground truth.",
        _on_dataset(scores.miou),
    ),
    Convention(
        "union_present",
        "CodeCrunch: IoU over the dataset, mean over the classes in the ground truth or predicted anywhere.",
        _on_dataset(_union_mean),
    ),
    Convention(
        "all_classes",
        "DINOv2 U-Net team, class average: IoU over the dataset, mean over all classes, an empty union = 0.",
        _on_dataset(_mean_with_empty_as(0.0)),
    ),
    Convention(
        "absent_one",
        "IoU over the dataset, mean over all classes, an empty union = 1.",
        _on_dataset(_mean_with_empty_as(1.0)),
    ),
    Convention(
        "codecrunch7",
        "CodeCrunch 7-class: true Ground Clutter, Flowers and Logs left out, predictions of them count "
        "as none, then union_present of the other classes; nan where the taxonomy lacks one of the three.",
        _codecrunch7,
    ),
    Convention(
        "per_image_union",
        "DesertMind headline: per image the mean IoU over classes in truth or prediction, then over images.",
        _per_image_union,
    ),
    Convention(
        "per_image_truth",
        "Per image the mean IoU over the classes in its ground truth, then over images.",
        _per_image_truth,
    ),
    Convention(
        "per_image_positive",
        "DINOv2 U-Net team, per-image file: per image the mean over the IoUs above 0, then over images.",
        _per_image_positive,
    ),
    Convention(
        "desertmind_per_class",
        "DesertMind per class: per class the mean IoU over images with it in truth or prediction, then over classes.",
        _per_class_union,
    ),
    Convention(
        "batch2_union",
        "Ignitia headline: per_image_union on pooled batches of 2 images in file order, the last may have 1.",
        _batch2_union,
    ),
    Convention(
        "ignitia_per_class",
        "Ignitia per class: per class the mean IoU over batches of 2 with it in truth or prediction, "
        "then over classes.",
        _batch2_per_class,
    ),
    Convention(
        "ignitia_dice",
        "Ignitia Dice: per batch of 2 the mean over all classes, empty union = 1, then over batches.",
        _batch2_dice,
    ),
    Convention(
        "micro",
        "DINOv2 U-Net team, headline: sum of intersections over sum of unions of all classes.",
        _on_dataset(scores.micro_iou),
    ),
    Convention(
        "frequency_weighted",
        "IoU over the dataset, weighted by each class's share of the true pixels.",
        _on_dataset(scores.frequency_weighted_iou),
    ),
    Convention("accuracy", "Share of the labelled pixels that are right.", _on_dataset(scores.accuracy)),
    Convention(
        "mean_class_accuracy",
        "Recall over the dataset, mean over the classes present in the ground truth.",
        _on_dataset(scores.mean_class_accuracy),
    ),
)

CONVENTIONS: dict[str, Convention] = {convention.name: convention for convention in _TABLE}
