from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from harness.config import Experiment
from harness.engine.schedule import encoder_is_frozen, learning_rates, peak_rate

PUBLISHED = Path(__file__).resolve().parents[3] / "shared" / "published"

CODECRUNCH = {
    "training.epochs": 60,
    "optimiser.lr": 3e-4,
    "optimiser.encoder_lr": 3e-5,
    "optimiser.decoder_lr": 1e-4,
    "schedule": {
        "kind": "cosine",
        "floor": 1e-7 / 3e-4,
        "warmup_epochs": 5,
        "freeze_encoder_epochs": 5,
        "encoder_warmup_epochs": 3,
    },
}

#: peak, the encoder's own peak, epochs, warm-up and floor of Ignitia's phases 2 to 6
IGNITIA = {
    2: (5e-4, None, 30, 0, 0.002),
    3: (3e-4, None, 40, 3, 0.0),
    4: (3e-4, None, 50, 3, 0.0),
    5: (2e-4, 5e-6, 30, 3, 0.0),
    6: (2e-4, 4e-6, 30, 3, 0.0),
}


def _ignitia(phase: int) -> dict[str, Any]:
    peak, encoder, epochs, warmup, floor = IGNITIA[phase]
    return {
        "training.epochs": epochs,
        "optimiser.lr": peak,
        "optimiser.encoder_lr": encoder,
        "schedule": {"kind": "cosine", "floor": floor, "warmup_epochs": warmup},
    }


def _published(path: str) -> list[dict[str, str]]:
    file = PUBLISHED / path
    if not file.is_file():
        pytest.skip("the published schedules are not beside this checkout")
    with open(file, newline="") as lines:
        return list(csv.DictReader(lines))


@pytest.mark.parametrize(
    ("epoch", "encoder", "decoder", "head"),
    [
        (1, 0.0, 2e-05, 6e-05),
        (5, 0.0, 1e-04, 3e-04),
        (6, 1e-05, 1e-04, 3e-04),
        (8, 3e-05, 9.96742e-05, 2.99023e-04),
        (9, 3e-05, 9.92679e-05, 2.97804e-04),
        (30, 1.94661e-05, 5.99429e-05, 1.79829e-04),
        (60, 3.73576e-08, 1.14851e-07, 3.44553e-07),
    ],
)
def test_three_rates_with_a_frozen_start_follow_codecrunchs_table(
    experiment: Callable[..., Experiment], epoch: int, encoder: float, decoder: float, head: float
) -> None:
    rates = learning_rates(experiment(CODECRUNCH), epoch, [])

    assert rates == pytest.approx({"encoder": encoder, "decoder": decoder, "head": head}, rel=1e-5, abs=0)


def test_every_row_of_codecrunchs_published_schedule_is_reproduced(experiment: Callable[..., Experiment]) -> None:
    rows, whole = _published("codecrunch/phase5_lr_schedule.csv"), experiment(CODECRUNCH)

    for row in rows:
        epoch = int(row["epoch"])
        rates = learning_rates(whole, epoch, [])
        for group in ("encoder", "decoder", "head"):
            # the table has six digits
            assert rates[group] == pytest.approx(float(row[f"lr_{group}"]), rel=1e-5, abs=1e-12), row
        assert encoder_is_frozen(whole.schedule, epoch) == (row["encoder_frozen"] == "yes"), row
    assert len(rows) == 60


@pytest.mark.parametrize(
    ("phase", "epoch", "group", "rate"),
    [
        (2, 1, "head", 5e-4),
        (2, 2, "head", 0.0004986332128943842),
        (2, 16, "head", 0.0002505),
        (2, 30, "head", 2.366787105615787e-06),
        (3, 1, "head", 1e-4),
        (3, 2, "head", 2e-4),
        (3, 4, "head", 3e-4),
        (3, 40, "head", 5.403767186210218e-07),
        (6, 6, "encoder", 3.946089741159647e-06),
        (6, 30, "encoder", 1.3523284516113953e-08),
        (6, 30, "head", 6.761642258056978e-07),
    ],
)
def test_ignitias_rates_in_effect_are_reproduced(
    experiment: Callable[..., Experiment], phase: int, epoch: int, group: str, rate: float
) -> None:
    rates = learning_rates(experiment(_ignitia(phase)), epoch, [])

    assert rates[group] == pytest.approx(rate, rel=1e-9)


def test_every_published_rate_of_ignitia_is_reproduced(experiment: Callable[..., Experiment]) -> None:
    rows = _published("ignitia/lr_in_effect.csv")

    for row in rows:
        rates = learning_rates(experiment(_ignitia(int(row["phase"]))), int(row["epoch"]), [])
        assert rates["head"] == pytest.approx(float(row["lr_in_effect_during_epoch"]), rel=1e-9), row
        if row["lr_backbone_in_effect"]:
            assert rates["encoder"] == pytest.approx(float(row["lr_backbone_in_effect"]), rel=1e-9), row
    assert {int(row["phase"]) for row in rows} == set(IGNITIA)


@pytest.mark.parametrize("patience", [0, 1, 3])
@pytest.mark.parametrize("factor", [0.5, 0.1, 0.7])
@pytest.mark.parametrize("seed", range(4))
def test_a_plateau_falls_at_the_same_epochs_as_torchs(
    experiment: Callable[..., Experiment], patience: int, factor: float, seed: int
) -> None:
    # two decimals, so that equal scores and rises below the threshold occur
    scores = np.random.default_rng(seed).random(30).round(2).tolist()
    scores[10] = scores[9] * (1 + 0.5e-4)
    plateau = {"kind": "plateau", "factor": factor, "patience": patience}
    whole = experiment({"training.epochs": 30, "optimiser.lr": 0.01, "schedule": plateau})
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.01)
    reference = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimiser, mode="max", factor=factor, patience=patience, eps=0
    )

    for epoch, score in enumerate(scores, 1):
        expected = optimiser.param_groups[0]["lr"]
        assert learning_rates(whole, epoch, scores[: epoch - 1])["head"] == pytest.approx(expected, rel=1e-9), epoch
        reference.step(score)
    assert expected < 0.01


def test_a_plateau_that_starts_at_score_zero_still_sees_the_first_rise(
    experiment: Callable[..., Experiment],
) -> None:
    whole = experiment({"schedule": {"kind": "plateau", "factor": 0.5, "patience": 0}, "optimiser.lr": 0.1})

    assert [learning_rates(whole, len(s) + 1, s)["head"] for s in ([], [0.0], [0.0, 0.0], [0.0, 0.1])] == [
        0.1,
        0.1,
        0.05,
        0.1,
    ]


def test_a_constant_schedule_warms_up_linearly_and_stays(experiment: Callable[..., Experiment]) -> None:
    whole = experiment(
        {"training.epochs": 5, "optimiser.lr": 0.4, "schedule": {"kind": "constant", "warmup_epochs": 4}}
    )

    rates = [learning_rates(whole, epoch, [])["head"] for epoch in range(1, 6)]

    assert rates == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4])


def test_a_warm_up_over_all_epochs_leaves_nothing_to_the_cosine(experiment: Callable[..., Experiment]) -> None:
    whole = experiment({"training.epochs": 2, "optimiser.lr": 0.2, "schedule": {"kind": "cosine", "warmup_epochs": 2}})

    assert [learning_rates(whole, epoch, [])["head"] for epoch in (1, 2)] == pytest.approx([0.1, 0.2])


def test_a_group_without_its_own_rate_takes_the_common_one(experiment: Callable[..., Experiment]) -> None:
    optimiser = experiment({"optimiser.lr": 0.2, "optimiser.encoder_lr": 0.1}).optimiser

    assert {g: peak_rate(optimiser, g) for g in ("encoder", "decoder", "head")} == {
        "encoder": 0.1,
        "decoder": 0.2,
        "head": 0.2,
    }
