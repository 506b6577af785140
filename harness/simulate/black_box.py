"""The space of the strategy table: 15 parameters, five of them conditional, 30 epochs."""

from __future__ import annotations

from typing import Any

from harness.config import Space, validate_section


def _choice(field: str, *choices: Any, **when: list[Any]) -> dict[str, Any]:
    return {"kind": "choice", "field": field, "choices": list(choices), "when": when}


def _kinds(field: str, *kinds: str) -> dict[str, Any]:
    return {"kind": "choice", "field": field, "choices": {kind: {"kind": kind} for kind in kinds}}


def _number(field: str, low: float, high: float, log: bool = False, **when: list[Any]) -> dict[str, Any]:
    return {"kind": "float", "field": field, "low": low, "high": high, "log": log, "when": when}


_PARAMETERS: dict[str, Any] = {
    "head": _kinds("model.head", "linear", "conv_stack", "convnext_style"),
    "head_channels": _choice("model.head.channels", 32, 64, 128, head=["conv_stack", "convnext_style"]),
    "stride": _choice("model.stride", 4, 8, 16),
    "resolution": {
        "kind": "choice",
        "field": "data.input_size",
        "choices": {"small": [64, 112], "medium": [96, 160], "large": [128, 224]},
    },
    "augmentation": _choice("augmentation.policy", "none", "flip", "ignitia_phase2", "codecrunch_moderate"),
    "schedule": _kinds("schedule", "constant", "cosine"),
    "floor": _number("schedule.floor", 0.0, 0.5, schedule=["cosine"]),
    "optimiser": _kinds("optimiser", "adamw", "sgd"),
    "beta2": _number("optimiser.beta2", 0.9, 0.9999, optimiser=["adamw"]),
    "momentum": _number("optimiser.momentum", 0.5, 0.99, optimiser=["sgd"]),
    "nesterov": _choice("optimiser.nesterov", False, True, optimiser=["sgd"]),
    "lr": _number("optimiser.lr", 1e-4, 1e-1, log=True),
    "weight_decay": _number("optimiser.weight_decay", 1e-5, 1e-1, log=True),
    "dice_weight": _number("loss.dice.weight", 0.0, 2.0),
    "focal_weight": _number("loss.focal.weight", 0.0, 2.0),
}


def black_box_space(epochs: int = 30) -> Space:
    """The space, its default Experiment still that of the package."""
    values = {"experiment": {"training": {"epochs": epochs}}, "parameters": _PARAMETERS}
    return validate_section(Space, values, "black box")
