"""The loss of Ignitia's phase 3 on both sides: the harness's terms under that team's names, and the plain loop."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from harness.bench import teams
from harness.config import validate_section
from harness.config.loss import LossConfig
from harness.losses import build_loss, class_weights

_INVERSE = {"kind": "inverse_frequency", "maximum": 5.0}
#: 1.0 focal + 0.5 Dice with Ignitia's class weights, under the names of that team's formulas
PHASE3 = validate_section(
    LossConfig,
    {
        "cross_entropy": {"weight": 0.0},
        "focal_weight_inside": {"weight": 1.0, "gamma": 2.0, "class_weights": _INVERSE},
        "dice_all_classes": {"weight": 0.5, "smooth": 1.0},
    },
    "loss of the benchmark",
)
_NAMES = tuple(f"class {index}" for index in range(teams.CLASSES))


def both_losses(truth: Tensor) -> tuple[nn.Module, teams.LossFunction]:
    """The harness's loss and the teams', with class weights from the same counts."""
    counts = np.bincount(truth.flatten(), minlength=teams.CLASSES).astype(np.float64)
    weights = class_weights(PHASE3.focal_weight_inside.class_weights, counts, _NAMES)
    return build_loss(PHASE3, counts, _NAMES), teams.focal_and_dice(torch.as_tensor(weights, dtype=torch.float32))
