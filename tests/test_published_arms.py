"""The arms of every file in ablations/: what they say is what the three systems did, and every one of them trains.

Numbers come from results/published and from the formulas of the systems' own scripts, written out here once more.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from harness.ablate import Replicates
from harness.ablate.designs import ResolvedArm, resolve_arms
from harness.config import IGNORE, Ablation, Experiment, apply_overrides, policy_steps, read_section
from harness.config.model import BackboneModel, SmpModel
from harness.data import build_taxonomy
from harness.engine.schedule import learning_rates
from harness.losses import build_loss, class_weights
from harness.models import build_model, parameter_counts, set_encoder_trainable
from harness.run.inprocess import run_inprocess
from harness.run.preflight import settle_ablation
from harness.store import StudyFolder

ROOT = Path(__file__).resolve().parents[1]
PUBLISHED = ROOT / "results" / "published"
FILES = sorted((ROOT / "ablations").glob("*.yaml"))
NAMES = [path.stem for path in FILES]
SUPPRESSED = ("Ground Clutter", "Flowers", "Logs")


@cache
def arms_of(name: str) -> dict[str, ResolvedArm]:
    """The arms of a file at full scale."""
    return resolve_arms(read_section(Ablation, ROOT / "ablations" / f"{name}.yaml"), "full")


def arm(file: str, name: str) -> Experiment:
    return arms_of(file)[name].experiment


def rows(path: str, **wanted: str) -> list[dict[str, str]]:
    """The lines of a published table in which the columns have the values wanted."""
    with open(PUBLISHED / path, newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    return [line for line in lines if all(line[column] == value for column, value in wanted.items())]


def every_arm() -> list[tuple[str, str]]:
    return [(file, name) for file in NAMES for name in arms_of(file)]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# ---- files ----


@pytest.mark.parametrize("file", NAMES)
def test_every_scale_of_a_file_gives_the_same_arms(file: str) -> None:
    ablation = read_section(Ablation, ROOT / "ablations" / f"{file}.yaml")
    assert {"smoke", "small", "full"} <= set(ablation.scale)
    for scale in ablation.scale:
        assert list(resolve_arms(ablation, scale)) == list(arms_of(file))


# ---- learning rates ----


def rates(experiment: Experiment, scores: list[float] | None = None) -> list[dict[str, float]]:
    """Learning rates in effect in each planned epoch."""
    given = scores or []
    epochs = range(1, experiment.training.epochs + 1)
    return [learning_rates(experiment, epoch, given[: epoch - 1]) for epoch in epochs]


@pytest.mark.parametrize(
    "name",
    ["codecrunch:phase5", "codecrunch_attempts:phase5", "codecrunch_faults:corrected", "codecrunch_faults:as_run"],
)
def test_codecrunchs_phase_5_runs_at_the_rates_of_its_script(name: str) -> None:
    published = rows("codecrunch/phase5_lr_schedule.csv")
    ours = rates(arm(*name.split(":")))
    assert len(ours) == len(published) == 60
    for epoch, line in zip(ours, published, strict=True):
        for group in ("encoder", "decoder", "head"):
            assert epoch[group] == pytest.approx(float(line[f"lr_{group}"]), rel=1e-5)
    frozen = [line["encoder_frozen"] for line in published]
    assert frozen == ["yes"] * 5 + ["no"] * 55
    assert arm(*name.split(":")).schedule.freeze_encoder_epochs == 5


def test_codecrunchs_phase_3_runs_at_the_rates_of_its_figure() -> None:
    published = rows("codecrunch/phase3_curve_digitised.csv")
    ours = rates(arm("codecrunch", "phase3"))
    assert len(ours) == len(published) == 100
    for epoch, line in zip(ours, published, strict=True):
        # read off a figure
        assert epoch["head"] == pytest.approx(float(line["lr_fitted"]), abs=0.7e-6)
        assert len(set(epoch.values())) == 1


@pytest.mark.parametrize("phase", ["2", "3", "4", "5", "6"])
def test_ignitias_phases_run_at_the_rates_of_their_logs(phase: str) -> None:
    published = rows("ignitia/lr_in_effect.csv", phase=phase)
    ours = rates(arm("ignitia", f"phase{phase}"))
    # phase 4 was stopped at epoch 11 of 50
    assert (len(ours), len(published)) == {"2": (30, 30), "3": (40, 40), "4": (50, 11)}.get(phase, (30, 30))
    for epoch, line in zip(ours, published, strict=False):
        assert epoch["head"] == epoch["decoder"]
        assert epoch["head"] == pytest.approx(float(line["lr_in_effect_during_epoch"]), rel=1e-9)
        if phase in "56":
            assert epoch["encoder"] == pytest.approx(float(line["lr_backbone_in_effect"]), rel=1e-9)


def test_ignitias_phase_1_runs_at_one_rate() -> None:
    assert rates(arm("ignitia", "phase1")) == [dict.fromkeys(("encoder", "decoder", "head"), 1e-4)] * 10


@pytest.mark.parametrize(
    ("name", "rate", "epochs"), [("phase1", 1e-4, 10), ("phase2_1", 3e-5, 6), ("phase2_2", 1e-5, 6)]
)
def test_desertminds_first_phases_run_at_one_rate(name: str, rate: float, epochs: int) -> None:
    assert [r["head"] for r in rates(arm("desertmind", name))] == [rate] * epochs


@pytest.mark.parametrize("name", ["desertmind:phase3", "desertmind_faults:corrected", "desertmind_faults:as_run"])
def test_desertminds_phase_3_halves_its_rates_in_epoch_5(name: str) -> None:
    scores = [float(line["val_miou"]) for line in rows("desertmind/epochs.csv", phase="3")]
    ours = rates(arm(*name.split(":")), scores)[:5]
    assert [r["encoder"] for r in ours] == pytest.approx([1e-5] * 4 + [0.5e-5])
    assert [r["head"] for r in ours] == [r["decoder"] for r in ours] == pytest.approx([5e-5] * 4 + [2.5e-5])


# ---- parameters ----


def counts(experiment: Experiment, frozen: bool = False) -> dict[str, tuple[int, int]]:
    """(all, trainable) parameters of encoder, decoder and head, on a network without memory."""
    random_weights = experiment.model.model_copy(update={"weights": "none"})
    with torch.device("meta"):
        model = build_model(random_weights, len(build_taxonomy(experiment.taxonomy).names))
    set_encoder_trainable(model, not frozen)
    return parameter_counts(model)


def trainable(experiment: Experiment, frozen: bool = False) -> int:
    return sum(trained for _, trained in counts(experiment, frozen).values())


@pytest.mark.parametrize(
    ("phase", "parameters", "encoder"),
    [
        ("phase1", 2_432_778, 0),
        ("phase2", 2_432_778, 0),
        ("phase3", 3_414_026, 0),
        ("phase4", 3_414_026, 0),
        ("phase5", 17_592_842, 14_178_816),
        ("phase6", 24_682_250, 21_268_224),
    ],
)
def test_ignitias_phases_train_the_parameters_that_they_logged(phase: str, parameters: int, encoder: int) -> None:
    ours = counts(arm("ignitia", phase))
    assert sum(trained for _, trained in ours.values()) == parameters
    assert ours["encoder"][1] == encoder


def test_codecrunchs_models_have_the_published_parameters() -> None:
    seven, ten = arm("codecrunch", "phase5"), arm("codecrunch", "phase3")
    assert {part: total for part, (total, _) in counts(seven).items()} == {
        "encoder": 42_500_160, "decoder": 3_169_296, "head": 1_799
    }  # fmt: skip
    assert trainable(seven) == 45_671_255
    assert trainable(seven, frozen=True) == 3_171_095
    assert trainable(ten) == 45_672_026


def test_desertminds_models_have_the_published_parameters() -> None:
    ours = counts(arm("desertmind", "phase1"))
    assert ours["encoder"] == (2_971_952, 2_971_952)
    assert ours["decoder"][0] + ours["head"][0] == 8_050_698
    # phase 2.1 trains the classifier alone, the phases after it everything
    assert trainable(arm("desertmind", "phase2_1")) == 8_050_698
    assert trainable(arm("desertmind", "phase3")) == 2_971_952 + 8_050_698


# ---- class weights ----


def weights_by_name(experiment: Experiment, term: str, pixels: dict[str, float]) -> dict[str, float]:
    names = build_taxonomy(experiment.taxonomy).names
    counted = np.array([pixels[name] for name in names])
    values = class_weights(getattr(experiment.loss, term).class_weights, counted, names)
    return dict(zip(names, values.tolist(), strict=True))


@pytest.mark.parametrize(
    ("file", "name", "term", "table"),
    [
        ("ignitia", "phase2", "cross_entropy", "class_pixels"),
        ("ignitia", "phase3", "focal", "class_pixels_phase6"),
        ("ignitia", "phase4", "focal", "class_pixels_phase6"),
        ("ignitia", "phase5", "focal", "class_pixels_phase6"),
        ("ignitia", "phase6", "focal", "class_pixels_phase6"),
        ("ignitia", "phase6", "boundary", "class_pixels_phase6"),
        ("ignitia_phase2_shapley", "class_weights", "cross_entropy", "class_pixels"),
        ("ignitia_faults", "corrected", "focal", "class_pixels_phase6"),
        ("ignitia_faults", "as_run", "focal_weight_inside", "class_pixels_phase6"),
        ("ignitia_as_run", "phase2_as_run", "cross_entropy", "class_pixels"),
        ("ignitia_as_run", "phase3_as_run", "focal_weight_inside", "class_pixels_phase6"),
        ("ignitia_as_run", "phase4_as_run", "focal_weight_inside", "class_pixels_phase6"),
        ("ignitia_as_run", "phase5_as_run", "focal_weight_inside", "class_pixels_phase6"),
        ("ignitia_as_run", "phase6_as_run", "focal_weight_inside", "class_pixels_phase6"),
        ("ignitia_as_run", "phase6_as_run", "boundary", "class_pixels_phase6"),
    ],
)
def test_ignitias_class_weights_follow_from_its_pixel_counts(file: str, name: str, term: str, table: str) -> None:
    published = rows(f"ignitia/{table}.csv")
    ours = weights_by_name(arm(file, name), term, {line["class"]: float(line["pixel_count"]) for line in published})
    for line in published:
        assert ours[line["class"]] == pytest.approx(float(line["weight"]), abs=0.5e-4 + 1e-9)


@pytest.mark.parametrize("name", ["desertmind:phase3", "desertmind_faults:corrected", "desertmind_faults:as_run"])
def test_desertminds_class_weights_follow_from_the_published_shares(name: str) -> None:
    shares = rows("codecrunch/class_distribution.csv", split="train", quantity="share_pct")
    pixels = {line["class"]: float(line["value"]) for line in shares if not line["note"]}
    assert len(pixels) == 10
    ours = weights_by_name(arm(*name.split(":")), "cross_entropy", pixels)
    published = [line for line in rows("desertmind/class_weights.csv", status="derived") if line["class_id"]]
    assert len(published) == 10
    for line in published:
        assert ours[line["true_class"]] == pytest.approx(float(line["weight"]), abs=1e-3)


@pytest.mark.parametrize(
    ("file", "name", "rocks"),
    [
        ("codecrunch", "phase5", 5.0),
        ("codecrunch_attempts", "phase5", 5.0),
        ("codecrunch_attempts", "rocks_8x", 8.0),
        ("codecrunch_faults", "protocol.class_weights_of_the_test_set", 5.0),
        ("codecrunch_faults", "as_run", 5.0),
    ],
)
def test_codecrunchs_class_weights_are_those_of_its_script(file: str, name: str, rocks: float) -> None:
    published = rows("codecrunch/class_weights.csv", source="train.py:558-560")
    expected = {line["class"]: float(line["value"]) for line in published} | {"Rocks": rocks}
    assert len(expected) == 7
    # theirs do not name the classes that the test set lacks
    experiment = arm(file, name)
    expected = {n: expected.get(n, 1.0) for n in build_taxonomy(experiment.taxonomy).names}
    assert weights_by_name(experiment, "cross_entropy", dict.fromkeys(expected, 1.0)) == expected


# ---- the loss of fixed logits ----

Formula = Callable[["Fixed"], Tensor]


class Fixed:
    """Fixed logits and truth of two images, the last class absent from the truth; float64."""

    def __init__(self, names: tuple[str, ...], ignored: bool) -> None:
        generator = torch.Generator().manual_seed(0)
        classes = len(names)
        self.names = names
        self.pixels = np.arange(classes, 0, -1) ** 2 * 100.0
        self.logits = 2 * torch.randn(2, classes, 14, 17, generator=generator, dtype=torch.float64)
        self.truth = torch.randint(0, classes - 1, (2, 14, 17), generator=generator)
        if ignored:
            self.truth[0, :3] = IGNORE
        self.valid = self.truth != IGNORE
        self.y = self.truth[self.valid]
        self.p = self.logits.softmax(1).movedim(1, 3)[self.valid]  # pixels x classes
        self.ce = -self.p[torch.arange(len(self.y)), self.y].log()

    def inverse(self) -> Tensor:
        return torch.tensor(5 * self.pixels.min() / self.pixels)[self.y]

    def overlaps(self) -> tuple[Tensor, Tensor, Tensor]:
        one_hot = torch.nn.functional.one_hot(self.y, len(self.names))
        return (self.p * one_hot).sum(0), self.p.sum(0), one_hot.sum(0).double()


def cross_entropy(f: Fixed) -> Tensor:
    return f.ce.mean()


def inverse_cross_entropy(f: Fixed) -> Tensor:
    return (f.inverse() * f.ce).sum() / f.inverse().sum()


def codecrunch_weights(f: Fixed, rocks: float) -> Tensor:
    values = {"Trees": 1.5, "Dry Grass": 0.8, "Dry Bushes": 1.5, "Landscape": 0.6, "Sky": 0.4, "Rocks": rocks}
    return torch.tensor([values.get(name, 1.0) for name in f.names], dtype=torch.float64)[f.y]


def explicit_cross_entropy(rocks: float) -> Formula:
    return lambda f: (codecrunch_weights(f, rocks) * f.ce).sum() / codecrunch_weights(f, rocks).sum()


def log_cross_entropy(f: Fixed) -> Tensor:
    w = 1 / np.log(1.02 + f.pixels / f.pixels.sum())
    w = torch.tensor(w / w.mean())[f.y]
    return (w * f.ce).sum() / w.sum()


def focal(gamma: float) -> Formula:
    return lambda f: (f.inverse() * (1 - (-f.ce).exp()) ** gamma * f.ce).sum() / f.inverse().sum()


def focal_inside(gamma: float) -> Formula:
    def formula(f: Fixed) -> Tensor:
        loss = f.inverse() * f.ce
        return ((1 - (-loss).exp()) ** gamma * loss).mean()

    return formula


def dice_present(smooth: float) -> Formula:
    def formula(f: Fixed) -> Tensor:
        both, predicted, true = f.overlaps()
        return 1 - ((2 * both + smooth) / (predicted + true + smooth))[true > 0].mean()

    return formula


def dice_all(smooth: float) -> Formula:
    def formula(f: Fixed) -> Tensor:
        both, predicted, true = f.overlaps()
        return 1 - ((2 * both + smooth) / (predicted + true + smooth)).mean()

    return formula


def dice_absent_perfect(f: Fixed) -> Tensor:
    both, predicted, true = f.overlaps()
    return torch.where(true > 0, 1 - 2 * both / (predicted + true), 0.0).mean()


def boundary(f: Fixed) -> Tensor:
    maps = []
    for labels in f.truth.numpy():
        total = np.zeros(labels.shape)
        for index in np.unique(labels):
            mask = labels == index
            edge = mask & ~ndimage.binary_erosion(mask, iterations=2)
            total += ndimage.gaussian_filter(edge.astype(float), 2.0)
        maps.append(total / (total.max() + 1e-6))
    return ((1 + torch.tensor(np.stack(maps)).flatten()) * f.inverse() * f.ce).mean()


def ohem(f: Fixed) -> Tensor:
    hard = f.ce > -np.log(0.7)
    kept = f.ce.argsort(descending=True)[: max(int(hard.sum()), int(np.ceil(0.1 * len(f.ce))))]
    w = codecrunch_weights(f, rocks=5.0)[kept]
    return (w * f.ce[kept]).sum() / w.sum()


Sum = list[tuple[float, Formula]]
CODECRUNCH: Sum = [(0.5, explicit_cross_entropy(5.0)), (0.5, dice_absent_perfect)]
PHASE3: Sum = [(1.0, focal(2.0)), (0.5, dice_present(1.0))]
PHASE4: Sum = [(0.4, focal(1.5)), (0.6, dice_present(1.0))]
PHASE5: Sum = [(0.3, focal(2.0)), (0.7, dice_present(1.0))]
PHASE6: Sum = [(0.25, focal(2.0)), (0.55, dice_present(1.0)), (0.2, boundary)]
PHASE3_RUN: Sum = [(1.0, focal_inside(2.0)), (0.5, dice_all(1.0))]
PHASE4_RUN: Sum = [(0.4, focal_inside(1.5)), (0.6, dice_all(1.0))]
PHASE5_RUN: Sum = [(0.3, focal_inside(2.0)), (0.7, dice_all(1.0))]
PHASE6_RUN: Sum = [(0.25, focal_inside(2.0)), (0.55, dice_all(1.0)), (0.2, boundary)]
DESERTMIND: Sum = [(1.0, log_cross_entropy), (0.5, dice_all(1e-6))]

#: what differs from the first sum of a file
SUMS: dict[str, tuple[Sum, dict[str, Sum]]] = {
    "ignitia": (
        [(1.0, cross_entropy)],
        {
            "phase2": [(1.0, inverse_cross_entropy)], "phase3": PHASE3, "phase4": PHASE4, "phase4_flip": PHASE4,
            "phase5": PHASE5, "phase5_flip": PHASE5, "phase6": PHASE6, "phase6_8views": PHASE6,
        },
    ),
    "ignitia_faults": (
        PHASE3,
        {
            "protocol.weight_inside_p": [(1.0, focal_inside(2.0)), (0.5, dice_present(1.0))],
            "protocol.absent_classes_in_dice": [(1.0, focal(2.0)), (0.5, dice_all(1.0))],
            "as_run": PHASE3_RUN,
        },
    ),
    "ignitia_as_run": (
        [(1.0, cross_entropy)],
        {
            "phase2": [(1.0, inverse_cross_entropy)], "phase2_as_run": [(1.0, inverse_cross_entropy)],
            "phase3": PHASE3, "phase3_as_run": PHASE3_RUN, "phase4": PHASE4, "phase4_as_run": PHASE4_RUN,
            "phase5": PHASE5, "phase5_as_run": PHASE5_RUN, "phase6": PHASE6, "phase6_as_run": PHASE6_RUN,
            "phase6_8views": PHASE6, "phase6_8views_as_run": PHASE6_RUN,
        },
    ),
    "ignitia_phase2_shapley": ([(1.0, cross_entropy)], {}),
    "codecrunch": (
        [(0.5, cross_entropy), (0.5, dice_absent_perfect)], {"phase5": CODECRUNCH, "phase5_tta": CODECRUNCH}
    ),
    "codecrunch_attempts": (
        CODECRUNCH,
        {
            "ohem": [(0.5, ohem), (0.5, dice_absent_perfect)],
            "rocks_8x": [(0.5, explicit_cross_entropy(8.0)), (0.5, dice_absent_perfect)],
        },
    ),
    "codecrunch_faults": (
        [(0.5, cross_entropy), (0.5, dice_present(1e-7))],
        {
            "protocol.absent_classes_perfect_in_dice": [(0.5, cross_entropy), (0.5, dice_absent_perfect)],
            "protocol.class_weights_of_the_test_set": [(0.5, explicit_cross_entropy(5.0)), (0.5, dice_present(1e-7))],
            "as_run": CODECRUNCH,
        },
    ),
    "desertmind": ([(1.0, cross_entropy)], {"phase3": DESERTMIND}),
    "desertmind_faults": (
        [(1.0, log_cross_entropy), (0.5, dice_present(1e-6))],
        {
            **dict.fromkeys(("before", "before_unit", "before_as_run"), [(1.0, cross_entropy)]),
            "protocol.absent_classes_in_dice": DESERTMIND,
            "as_run": DESERTMIND,
        },
    ),
}  # fmt: skip


@pytest.mark.parametrize(("file", "name"), every_arm())
def test_the_loss_of_an_arm_is_the_formula_written_out(file: str, name: str) -> None:
    experiment = arm(file, name)
    first, others = SUMS[file]
    parts = others.get(name, first)
    if "class_weights" in arms_of(file)[name].factors:
        parts = [(1.0, inverse_cross_entropy)]
    # Ignitia ignores nothing
    fixed = Fixed(build_taxonomy(experiment.taxonomy).names, ignored="ignitia" not in file)

    total, terms = build_loss(experiment.loss, fixed.pixels, fixed.names)(fixed.logits, fixed.truth)

    assert len(terms) == len(parts)
    assert total.item() == pytest.approx(sum(weight * part(fixed) for weight, part in parts).item(), rel=1e-6)


def test_the_sums_name_arms_that_are_there() -> None:
    assert sorted(SUMS) == NAMES
    assert all(set(others) <= set(arms_of(file)) for file, (_, others) in SUMS.items())


# ---- what else the scripts decide, line by line ----

PATHS = (
    "data.input_size", "training.batch_size", "training.accumulation", "training.epochs", "training.precision",
    "training.patience", "training.drop_last", "optimiser.kind", "optimiser.weight_decay", "optimiser.clip_norm",
    "optimiser.encoder_clip_norm",
)  # fmt: skip
SETTINGS: dict[tuple[str, str], tuple[Any, ...]] = {
    ("ignitia", "phase1"): ((266, 476), 2, 1, 10, "fp32", None, False, "sgd", 0.0, None, None),
    ("ignitia", "phase2"): ((266, 476), 2, 1, 30, "fp16", 10, False, "adamw", 1e-4, None, None),
    ("ignitia", "phase3"): ((364, 644), 2, 2, 40, "fp16", 12, False, "adamw", 1e-4, None, None),
    ("ignitia", "phase4"): ((364, 644), 2, 2, 50, "fp16", 10, False, "adamw", 1e-4, None, None),
    ("ignitia", "phase5"): ((364, 644), 2, 2, 30, "fp16", 10, False, "adamw", 1e-4, 5.0, 1.0),
    ("ignitia", "phase6"): ((364, 644), 2, 2, 30, "fp16", 10, False, "adamw", 1e-4, 5.0, 1.0),
    ("codecrunch", "phase3"): ((512, 896), 4, 1, 100, "bf16", None, True, "adamw", 0.01, 1.0, None),
    ("codecrunch", "phase5"): ((512, 896), 4, 1, 60, "bf16", 15, True, "adamw", 0.01, 1.0, None),
    ("desertmind", "phase1"): ((540, 960), 2, 1, 10, "fp16", 2, True, "adamw", 0.01, None, None),
    ("desertmind", "phase2_1"): ((540, 960), 2, 1, 6, "fp16", 2, True, "adamw", 0.01, None, None),
    ("desertmind", "phase2_2"): ((540, 960), 2, 1, 6, "fp16", 2, True, "adamw", 0.01, None, None),
    ("desertmind", "phase3"): ((540, 960), 2, 1, 12, "fp16", 3, True, "adamw", 1e-4, None, None),
}


@pytest.mark.parametrize(("file", "name"), SETTINGS)
def test_a_phase_has_the_settings_of_its_script(file: str, name: str) -> None:
    experiment = arm(file, name)
    found = []
    for path in PATHS:
        value: Any = experiment
        for part in path.split("."):
            value = getattr(value, part)
        found.append(value)
    assert dict(zip(PATHS, found, strict=True)) == dict(zip(PATHS, SETTINGS[file, name], strict=True))


def test_phases_start_from_the_phases_that_they_started_from() -> None:
    starts = {(file, name): a.start for file in NAMES for name, a in arms_of(file).items() if a.start}
    assert starts == {
        ("ignitia", "phase4"): ("phase3",),
        ("ignitia", "phase4_flip"): ("phase4",),
        ("ignitia", "phase5"): ("phase4",),
        ("ignitia", "phase5_flip"): ("phase5",),
        ("ignitia", "phase6"): ("phase5",),
        ("ignitia", "phase6_8views"): ("phase6",),
        ("codecrunch", "phase3_suppressed"): ("phase3",),
        ("codecrunch", "phase5"): ("phase3",),
        ("codecrunch", "phase5_tta"): ("phase5",),
        ("codecrunch_attempts", "test_batchnorm"): ("phase5",),
        ("codecrunch_attempts", "ensemble"): ("phase5", "convnext", "segformer"),
        ("desertmind", "phase2_1"): ("phase1",),
        ("desertmind", "phase2_2"): ("phase2_1",),
        ("desertmind", "phase3"): ("phase2_2",),
        ("ignitia_as_run", "phase4"): ("phase3",),
        ("ignitia_as_run", "phase5"): ("phase4",),
        ("ignitia_as_run", "phase6"): ("phase5",),
        ("ignitia_as_run", "phase6_8views"): ("phase6",),
        ("ignitia_as_run", "phase4_as_run"): ("phase3_as_run",),
        ("ignitia_as_run", "phase5_as_run"): ("phase4_as_run",),
        ("ignitia_as_run", "phase6_as_run"): ("phase5_as_run",),
        ("ignitia_as_run", "phase6_8views_as_run"): ("phase6_as_run",),
        ("desertmind_faults", "corrected"): ("before",),
        ("desertmind_faults", "protocol.unit_input"): ("before_unit",),
        ("desertmind_faults", "protocol.per_image_union"): ("before",),
        ("desertmind_faults", "protocol.reset_best"): ("before",),
        ("desertmind_faults", "protocol.augmented_class_counts"): ("before",),
        ("desertmind_faults", "protocol.absent_classes_in_dice"): ("before",),
        ("desertmind_faults", "protocol.batchnorm_of_two"): ("before",),
        ("desertmind_faults", "as_run"): ("before_as_run",),
    }


def test_the_scoring_arms_say_how_they_score() -> None:
    assert arm("codecrunch", "phase3_suppressed").evaluation.suppress == SUPPRESSED
    assert arm("codecrunch_attempts", "test_batchnorm").evaluation.batchnorm == "batch"
    tta = {
        ("ignitia", "phase4_flip"): ((1.0,), "nearest"),
        ("ignitia", "phase5_flip"): ((1.0,), "nearest"),
        ("ignitia", "phase6_8views"): ((0.9, 1.0, 1.1, 1.2), "floor"),
        ("ignitia_as_run", "phase6_8views"): ((0.9, 1.0, 1.1, 1.2), "floor"),
        ("ignitia_as_run", "phase6_8views_as_run"): ((0.9, 1.0, 1.1, 1.2), "floor"),
        ("codecrunch", "phase5_tta"): ((0.75, 1.0, 1.25), "nearest"),
    }
    for (file, name), expected in tta.items():
        views = arm(file, name).evaluation.tta
        assert (views.scales, views.rounding, views.flip) == (*expected, True)


# ---- faults ----

AUGMENTED = {"border_class": True, "augmented_class_counts": True, "score": "batch2_union"}
RESUMED = AUGMENTED | {"reset_best": True}

#: the arms with a fault in `protocol`, and which
FAULTS: dict[tuple[str, str], dict[str, Any]] = {
    ("ignitia_faults", "protocol.border_class"): {"border_class": True},
    ("ignitia_faults", "protocol.augmented_class_counts"): {"augmented_class_counts": True},
    ("ignitia_faults", "protocol.bilinear_masks"): {"bilinear_masks": True},
    ("ignitia_faults", "protocol.batch_mean_miou"): {"score": "batch2_union"},
    ("ignitia_faults", "protocol.select_on_test"): {"select_on_test": True},
    ("ignitia_faults", "as_run"): AUGMENTED,
    # phase 1 augments nothing and weighs no class; phases 4 to 6 resume
    ("ignitia_as_run", "phase1_as_run"): {"bilinear_masks": True, "score": "batch2_union"},
    ("ignitia_as_run", "phase2_as_run"): AUGMENTED,
    ("ignitia_as_run", "phase3_as_run"): AUGMENTED,
    ("ignitia_as_run", "phase4_as_run"): RESUMED,
    ("ignitia_as_run", "phase5_as_run"): RESUMED,
    ("ignitia_as_run", "phase6_as_run"): RESUMED,
    ("ignitia_as_run", "phase6_8views_as_run"): RESUMED,
    ("codecrunch_faults", "protocol.select_on_test"): {"select_on_test": True},
    ("codecrunch_faults", "protocol.union_present"): {"score": "union_present"},
    ("codecrunch_faults", "as_run"): {"select_on_test": True, "score": "union_present"},
    ("desertmind_faults", "before_as_run"): {"score": "per_image_union"},
    ("desertmind_faults", "protocol.per_image_union"): {"score": "per_image_union"},
    ("desertmind_faults", "protocol.reset_best"): {"reset_best": True},
    ("desertmind_faults", "protocol.augmented_class_counts"): {"augmented_class_counts": True},
    ("desertmind_faults", "as_run"): {"reset_best": True, "augmented_class_counts": True, "score": "per_image_union"},
}


def test_the_arms_with_a_fault_in_the_protocol_have_that_one_and_no_other_arm_has_any() -> None:
    correct = Experiment().protocol
    found = {(file, name): arm(file, name).protocol for file, name in every_arm()}
    assert {key: protocol for key, protocol in found.items() if protocol != correct} == {
        key: correct.model_copy(update=faults) for key, faults in FAULTS.items()
    }


def leaves(value: Any, path: str = "") -> dict[str, Any]:
    """The fields of an Experiment by dotted path, lists as one field."""
    if not isinstance(value, dict):
        return {path: value}
    return {p: v for key, inner in value.items() for p, v in leaves(inner, f"{path}.{key}".strip(".")).items()}


def changed(one: Experiment, other: Experiment) -> dict[str, Any]:
    """What `one` has that `other` has not, by path, but for the weights that it starts from."""
    old, new = (leaves(e.model_dump(mode="json", exclude={"start"})) for e in (other, one))
    return {path: value for path, value in new.items() if path not in old or old[path] != value}


#: what each arm of one fault changes, beside `protocol`
ONE_FAULT: dict[tuple[str, str], set[str]] = {
    ("ignitia_faults", "protocol.weight_inside_p"): {"loss.focal.weight", "loss.focal_weight_inside"},
    ("ignitia_faults", "protocol.absent_classes_in_dice"): {"loss.dice.weight", "loss.dice_all_classes"},
    ("codecrunch_faults", "protocol.input_raster"): {"evaluation.raster"},
    ("codecrunch_faults", "protocol.absent_classes_perfect_in_dice"): {"loss.dice.weight", "loss.dice_absent_perfect"},
    ("codecrunch_faults", "protocol.classes_of_the_test_set"): {"taxonomy.name"},
    ("codecrunch_faults", "protocol.class_weights_of_the_test_set"): {"loss.cross_entropy.class_weights"},
    ("codecrunch_faults", "protocol.brightness_of_the_test_set"): {"augmentation"},
    ("desertmind_faults", "protocol.unit_input"): {"data.normalise"},
    ("desertmind_faults", "protocol.absent_classes_in_dice"): {"loss.dice.weight", "loss.dice_all_classes"},
    ("desertmind_faults", "protocol.batchnorm_of_two"): {"training.batchnorm"},
    ("desertmind_faults", "protocol.no_start"): set(),
}
STUDIES = ["ignitia_faults", "codecrunch_faults", "desertmind_faults"]
#: another phase's or system's, not in the phase as it was run
NOT_RUN = {
    "ignitia_faults": {"protocol.bilinear_masks", "protocol.select_on_test"},
    "codecrunch_faults": set(),
    "desertmind_faults": {"protocol.no_start", "protocol.batchnorm_of_two"},
}


@pytest.mark.parametrize("file", STUDIES)
def test_an_arm_of_one_fault_changes_that_alone(file: str) -> None:
    for name in arms_of(file):
        if name.startswith("protocol."):
            named = {f"protocol.{fault}" for fault in FAULTS.get((file, name), {})} | ONE_FAULT.get((file, name), set())
            paths = changed(arm(file, name), arm(file, "corrected"))
            assert all(any(p == n or p.startswith(f"{n}.") for n in named) for p in paths), name
            assert all(any(p == n or p.startswith(f"{n}.") for p in paths) for n in named), name


@pytest.mark.parametrize("file", STUDIES)
def test_a_phase_as_it_was_run_has_every_one_of_its_faults_and_nothing_else(file: str) -> None:
    together: dict[str, Any] = {}
    for name in arms_of(file):
        if name.startswith("protocol.") and name not in NOT_RUN[file]:
            together |= changed(arm(file, name), arm(file, "corrected"))
    as_run = changed(arm(file, "as_run"), arm(file, "corrected"))
    # its taxonomy has no place for the weights of classes that it ignores
    lost = {f"loss.cross_entropy.class_weights.values.{name}" for name in SUPPRESSED}
    assert as_run == {p: v for p, v in together.items() if file != "codecrunch_faults" or p not in lost}


def test_codecrunchs_brightness_is_the_only_step_that_its_test_set_changed() -> None:
    ours, theirs = (policy_steps(arm("codecrunch_faults", name).augmentation) for name in ("corrected", "as_run"))
    assert [(a.kind, a.brightness, b.brightness) for a, b in zip(ours, theirs, strict=True) if a != b] == [
        ("brightness_contrast", (-0.3, 0.3), (-0.3, 0.1))
    ]


def test_ignitias_corrected_phases_are_the_same_beside_their_faults() -> None:
    corrected = [name for name in arms_of("ignitia_as_run") if not name.endswith("as_run")]
    assert [name for name in arms_of("ignitia") if not name.endswith("_flip")] == corrected
    for name in corrected:
        assert arm("ignitia_as_run", name) == arm("ignitia", name)


def test_ignitias_phases_as_they_were_run_differ_from_the_corrected_ones_by_faults_alone() -> None:
    losses = {f"loss.{term}" for term in ("focal", "focal_weight_inside", "dice", "dice_all_classes")}
    for phase in ("phase1", "phase2", "phase3", "phase4", "phase5", "phase6", "phase6_8views"):
        name = f"{phase}_as_run"
        paths = changed(arm("ignitia_as_run", name), arm("ignitia_as_run", phase))
        allowed = {"evaluation", "protocol"} | (losses if phase not in ("phase1", "phase2") else set())
        assert {".".join(p.split(".")[: 1 + p.startswith("loss.")]) for p in paths} == allowed, phase
        assert paths["evaluation.raster"] == "input"


def test_each_rung_of_ignitia_as_run_changes_the_phase_or_its_faults_and_never_both() -> None:
    ablation = read_section(Ablation, ROOT / "ablations" / "ignitia_as_run.yaml")
    steps = [(name.removesuffix("_as_run"), name.endswith("_as_run")) for name in ablation.design.rungs]
    assert len(steps) == 14
    for (phase, faulty), (next_phase, next_faulty) in pairwise(steps):
        assert (phase == next_phase) != (faulty == next_faulty)


@pytest.mark.parametrize("file", NAMES)
def test_a_study_with_an_arm_that_chooses_on_the_test_set_begins_with_a_warning(file: str) -> None:
    ablation = read_section(Ablation, ROOT / "ablations" / f"{file}.yaml")
    _, said = settle_ablation(ablation, "smoke")
    warned = any(line.startswith("WARNING: some arms choose their best epoch on the test set") for line in said)
    assert warned is (file in ("ignitia_faults", "codecrunch_faults"))


def test_arms_that_choose_on_the_test_set_can_be_set_beside_the_others_there() -> None:
    # they have no validation score; the frames in common are the test set's
    for name in arms_of("codecrunch_faults"):
        assert arm("codecrunch_faults", name).evaluation.score_test


def test_batches_of_one_image_come_up_where_batch_statistics_need_two() -> None:
    # 317 validation and 1002 test frames: in batches of 4 the last validation batch is one image
    size = arm("codecrunch_attempts", "test_batchnorm").evaluation.batch_size
    assert 317 % size != 1 and 1002 % size != 1


def test_an_attempt_changes_phase_5_by_its_own_step_alone() -> None:
    base = policy_steps(arm("codecrunch_attempts", "phase5").augmentation)
    added = {"cutmix": ["cutmix"], "shuffle_grey": ["channel_shuffle", "grey"], "fourier": ["fourier"]}
    for name, kinds in added.items():
        steps = policy_steps(arm("codecrunch_attempts", name).augmentation)
        assert steps[: len(base)] == base
        assert [step.kind for step in steps[len(base) :]] == kinds


# ---- every arm trains ----

SIZE = [64, 96]
SMALL_ENCODERS = {"resnet101": "tu-test_resnet", "tu-convnext_tiny": "tu-test_convnext", "mit_b2": "mit_b0"}
#: stands in for DesertMind's model of 11 million parameters where its phases are not the question
SMALL_WHOLE = {"kind": "smp", "decoder": "DeepLabV3Plus", "encoder": "tu-test_resnet", "weights": "none"}


def small(file: str, experiment: Experiment) -> Experiment:
    """The same arm with other sizes, counts and precision."""
    epochs = min(experiment.training.epochs, 2)
    schedule = experiment.schedule
    changes: dict[str, Any] = {
        "data.synthetic": {"train": 4, "val": 2, "test": 2, "height": SIZE[0], "width": SIZE[1]},
        "data.input_size": SIZE,
        "model.weights": "none",
        "training.epochs": epochs,
        "training.batch_size": 2,
        "training.precision": "fp32",
        "training.workers": 0,
        "schedule.warmup_epochs": min(schedule.warmup_epochs, 1),
        "schedule.freeze_encoder_epochs": min(schedule.freeze_encoder_epochs, 1),
        "schedule.encoder_warmup_epochs": min(schedule.encoder_warmup_epochs, 1),
    }
    if isinstance(experiment.model, BackboneModel):
        changes |= {"model.backbone": "test_vit", "model.head.channels": 32}
    if isinstance(experiment.model, SmpModel):
        changes["model.encoder"] = SMALL_ENCODERS[experiment.model.encoder]
    if file == "desertmind_faults":
        changes["model"] = SMALL_WHOLE
    steps = [step.model_dump(mode="json") for step in policy_steps(experiment.augmentation)]
    if any(step["kind"] == "random_crop" for step in steps):
        steps = [step | ({"height": 64, "width": 64} if step["kind"] == "random_crop" else {}) for step in steps]
        changes["augmentation"] = {"kind": "steps", "steps": steps}
    return apply_overrides(experiment, changes)


@pytest.mark.parametrize("file", NAMES)
def test_every_arm_trains_and_hands_its_weights_on(file: str, tmp_path: Path) -> None:
    arms = {name: small(file, resolved.experiment) for name, resolved in arms_of(file).items()}
    study = Replicates(StudyFolder(tmp_path), arms, [0])

    run_inprocess(study)

    ended = {row.picked["arm"]: row for row in StudyFolder(tmp_path).trials.read()}
    assert {name: row.error for name, row in ended.items()} == dict.fromkeys(arms)
    for name, experiment in arms.items():
        seen = study.record.epochs[ended[name].trial]
        trained = [row.epoch for row in seen if row.epoch > 0]
        assert trained == list(range(1, experiment.training.epochs + 1))
        assert all(0 <= row.score <= 1 and np.isfinite(row.val_loss) for row in seen)
        names = build_taxonomy(experiment.taxonomy).names
        same_classes = [build_taxonomy(arms[start].taxonomy).names == names for start in arms_of(file)[name].start]
        # epoch 0 is the weights that it starts from, the first to beat unless the best is reset
        kept = experiment.training.epochs == 0 or not experiment.protocol.reset_best
        assert (seen[0].epoch == 0) is (bool(same_classes) and all(same_classes) and kept)
        run = StudyFolder(tmp_path).run(ended[name].trial)
        assert run.confusion.exists()
        assert run.test_confusion.exists() is experiment.evaluation.score_test
