"""The optimiser over the model's parameter groups, and one optimiser step."""

from __future__ import annotations

import torch
from torch import nn

from harness.config import Experiment
from harness.config.training import OptimiserConfig, Sgd
from harness.engine.schedule import peak_rate
from harness.models import parameter_groups


def build_optimiser(config: OptimiserConfig, model: nn.Module) -> torch.optim.Optimizer:
    """One parameter group for each of encoder, decoder and head that has trainable parameters."""
    groups = [
        {"params": parameters, "name": name, "lr": peak_rate(config, name)}
        for name, parameters in parameter_groups(model).items()
    ]
    if isinstance(config, Sgd):
        return torch.optim.SGD(
            groups,
            lr=config.lr,
            momentum=config.momentum,
            nesterov=config.nesterov,
            weight_decay=config.weight_decay,
            fused=True,
        )
    return torch.optim.AdamW(
        groups,
        lr=config.lr,
        betas=(config.beta1, config.beta2),
        weight_decay=config.weight_decay,
        # one kernel for all parameters: a third of the time of the default on a CPU, for a head of 2.4 million
        fused=True,
    )


def set_learning_rates(optimiser: torch.optim.Optimizer, rates: dict[str, float]) -> dict[str, float]:
    """Put the rates in effect; returns those of the groups that exist."""
    for group in optimiser.param_groups:
        group["lr"] = rates[group["name"]]
    return {group["name"]: group["lr"] for group in optimiser.param_groups}


def clip_gradients(experiment: Experiment, optimiser: torch.optim.Optimizer) -> None:
    """Scale gradients down to the configured L2 norms: one for all, or the encoder's apart."""
    config = experiment.optimiser
    parameters = {group["name"]: group["params"] for group in optimiser.param_groups}
    if config.encoder_clip_norm is not None and "encoder" in parameters:
        nn.utils.clip_grad_norm_(parameters.pop("encoder"), config.encoder_clip_norm)
    if config.clip_norm is not None:
        nn.utils.clip_grad_norm_([p for group in parameters.values() for p in group], config.clip_norm)
