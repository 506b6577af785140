"""Metrics: per-image confusion matrices, and every score and convention computed from them, without torch."""

from __future__ import annotations

from harness.metrics.confusion import confusion_matrix
from harness.metrics.conventions import CONVENTIONS, Convention, score_by_convention
from harness.metrics.scores import (
    Counts,
    accuracy,
    counts,
    dataset_counts,
    dice,
    frequency_weighted_iou,
    iou,
    mean_class_accuracy,
    mean_dice,
    micro_iou,
    miou,
    per_image_table,
    precision,
    recall,
)

__all__ = [
    "CONVENTIONS",
    "Convention",
    "Counts",
    "accuracy",
    "confusion_matrix",
    "counts",
    "dataset_counts",
    "dice",
    "frequency_weighted_iou",
    "iou",
    "mean_class_accuracy",
    "mean_dice",
    "micro_iou",
    "miou",
    "per_image_table",
    "precision",
    "recall",
    "score_by_convention",
]
