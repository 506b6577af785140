"""Losses: class-weight schemes, the terms, and their weighted sum."""

from __future__ import annotations

from harness.losses.class_weights import class_weights
from harness.losses.total import Loss, build_loss

__all__ = ["Loss", "build_loss", "class_weights"]
