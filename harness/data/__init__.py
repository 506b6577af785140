"""Data: what the ids mean, frame folders, the synthetic desert, the frame cache, augmentation, batches."""

from __future__ import annotations

from harness.data.augment import augment, build_augmentation, needs_native
from harness.data.batches import eval_batches, train_batches
from harness.data.cache import FrameArrays, build_once, cache_folder, dataset_root, open_frames, opening
from harness.data.census import Census, DatasetCheck, census, check_dataset, class_counts
from harness.data.desert import render_frame, write_desert
from harness.data.frames import (
    Frame,
    dataset_fingerprint,
    existing_splits,
    image_size,
    list_frames,
    read_frame,
    read_image,
    read_mask,
)
from harness.data.gap import gap
from harness.data.mixing import needs_style
from harness.data.taxonomy import UNMAPPED, Taxonomy, build_taxonomy

__all__ = [
    "UNMAPPED", "Census", "DatasetCheck", "Frame", "FrameArrays", "Taxonomy", "augment", "build_augmentation",
    "build_once", "build_taxonomy", "cache_folder", "census", "check_dataset", "class_counts", "dataset_fingerprint",
    "dataset_root", "eval_batches", "existing_splits", "gap", "image_size", "list_frames", "needs_native",
    "needs_style", "open_frames", "opening", "read_frame", "read_image", "read_mask", "render_frame",
    "train_batches", "write_desert",
]  # fmt: skip
