"""Losses: class-weight schemes, the resizing of logits, the terms, and their weighted sum."""

from __future__ import annotations

from harness.losses.class_weights import class_weights
from harness.losses.resize import resize_logits
from harness.losses.total import Loss, build_loss

__all__ = ["Loss", "build_loss", "class_weights", "resize_logits"]
