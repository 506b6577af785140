from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from harness.config import Experiment
from harness.engine.optimiser import build_optimiser, clip_gradients, set_learning_rates
from harness.models import build_model

CONV_STACK = {"kind": "conv_stack", "channels": 8}


def _groups(optimiser: torch.optim.Optimizer) -> dict[str, dict]:
    return {group["name"]: group for group in optimiser.param_groups}


def test_encoder_decoder_and_head_have_their_own_rate(experiment: Callable[..., Experiment]) -> None:
    whole = experiment(
        {"model.head": CONV_STACK, "optimiser.lr": 0.3, "optimiser.encoder_lr": 0.1, "optimiser.decoder_lr": 0.2}
    )
    model = build_model(whole.model, 10)

    groups = _groups(build_optimiser(whole.optimiser, model))

    assert {name: group["lr"] for name, group in groups.items()} == {"encoder": 0.1, "decoder": 0.2, "head": 0.3}
    for name, part in (("encoder", model.encoder), ("decoder", model.decoder), ("head", model.head)):
        assert {id(p) for p in groups[name]["params"]} == {id(p) for p in part.parameters()}


def test_frozen_parameters_are_not_in_the_optimiser(experiment: Callable[..., Experiment]) -> None:
    whole = experiment({"model.trainable_blocks": 0})
    model = build_model(whole.model, 10)

    groups = _groups(build_optimiser(whole.optimiser, model))

    # a linear head has no decoder
    assert list(groups) == ["head"]
    assert [p.shape[0] for p in groups["head"]["params"]] == [10, 10]


def test_adamws_options_reach_torch(experiment: Callable[..., Experiment]) -> None:
    options = {"kind": "adamw", "beta1": 0.8, "beta2": 0.95, "weight_decay": 0.07}
    whole = experiment({"optimiser": options})

    optimiser = build_optimiser(whole.optimiser, build_model(whole.model, 10))

    assert type(optimiser) is torch.optim.AdamW
    assert all(g["betas"] == (0.8, 0.95) and g["weight_decay"] == 0.07 for g in optimiser.param_groups)


@pytest.mark.parametrize(("momentum", "nesterov"), [(0.0, False), (0.7, False), (0.7, True)])
def test_sgds_options_reach_torch(experiment: Callable[..., Experiment], momentum: float, nesterov: bool) -> None:
    options = {"kind": "sgd", "momentum": momentum, "nesterov": nesterov, "weight_decay": 0.02}
    whole = experiment({"optimiser": options})

    optimiser = build_optimiser(whole.optimiser, build_model(whole.model, 10))

    assert type(optimiser) is torch.optim.SGD
    for group in optimiser.param_groups:
        assert (group["momentum"], group["nesterov"], group["weight_decay"]) == (momentum, nesterov, 0.02)


def test_rates_in_effect_are_those_of_the_groups_that_exist() -> None:
    optimiser = torch.optim.SGD([{"params": [torch.nn.Parameter(torch.zeros(1))], "name": "head"}], lr=1.0)

    rates = set_learning_rates(optimiser, {"encoder": 0.1, "decoder": 0.2, "head": 0.3})

    assert rates == {"head": 0.3}
    assert optimiser.param_groups[0]["lr"] == 0.3


@pytest.mark.parametrize(
    ("clip_norm", "encoder_clip_norm", "encoder", "head"),
    [
        # the gradients are (3, 4) and (12,): norms 5 and 12, together 13
        (None, None, [3.0, 4.0], [12.0]),
        (6.5, None, [1.5, 2.0], [6.0]),
        (13.5, None, [3.0, 4.0], [12.0]),
        (6.0, 1.0, [0.6, 0.8], [6.0]),
        (None, 2.5, [1.5, 2.0], [12.0]),
        (12.5, 5.5, [3.0, 4.0], [12.0]),
    ],
)
def test_gradients_are_clipped_to_one_norm_or_the_encoders_apart(
    experiment: Callable[..., Experiment],
    clip_norm: float | None,
    encoder_clip_norm: float | None,
    encoder: list[float],
    head: list[float],
) -> None:
    whole = experiment({"optimiser.clip_norm": clip_norm, "optimiser.encoder_clip_norm": encoder_clip_norm})
    parameters = {"encoder": torch.nn.Parameter(torch.zeros(2)), "head": torch.nn.Parameter(torch.zeros(1))}
    parameters["encoder"].grad, parameters["head"].grad = torch.tensor([3.0, 4.0]), torch.tensor([12.0])
    optimiser = torch.optim.SGD([{"params": [p], "name": name} for name, p in parameters.items()], lr=1.0)

    clip_gradients(whole, optimiser)

    assert parameters["encoder"].grad.tolist() == pytest.approx(encoder, rel=1e-5)
    assert parameters["head"].grad.tolist() == pytest.approx(head, rel=1e-5)


def test_the_rest_is_clipped_where_the_encoder_is_frozen(experiment: Callable[..., Experiment]) -> None:
    whole = experiment({"optimiser.clip_norm": 6.0, "optimiser.encoder_clip_norm": 1.0})
    head = torch.nn.Parameter(torch.zeros(1))
    head.grad = torch.tensor([12.0])

    clip_gradients(whole, torch.optim.SGD([{"params": [head], "name": "head"}], lr=1.0))

    assert head.grad.tolist() == pytest.approx([6.0], rel=1e-5)
